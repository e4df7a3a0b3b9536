"""Read a dataset back where it lies, every byte, and compare it with its manifest: the proof that needs no receipt and no trust.

`python -m ray_jobs.transfer.verify --store JSON --manifest KEY [--sha256 HEX]`, which is what `flywheel verify` runs. Prints a line for
each object that is wrong, then one that says how many are right; ends with 1 where anything is wrong.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from ray_jobs.packing.manifest import NAME, Manifest
from ray_jobs.seam.errors import DataError, FlywheelError, UserError
from ray_jobs.seam.store import Entry, Store, StoreConfig
from ray_jobs.transfer.copy import holds
from ray_jobs.transfer.plan import Item, listing, named, strays

READS_AT_ONCE = 16


def verify(store: Store, prefix: str, sha256: str | None) -> tuple[Manifest, Iterator[str]]:
    """The manifest, and a line for each object that is missing, other than its SHA-256 says, or not in the manifest; found while it is read.

    `sha256`: of the manifest itself. Raises DataError where that differs or it is no manifest, StoreError where the store fails.
    """
    key = f"{prefix}/{NAME}"
    data = store.get(key)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{store.config.url}/{key} is not the manifest that was packed ({sha256[:12]}): delete it there and copy the day again")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{store.config.url}/{key} is not a manifest of this version") from error
    return manifest, _wrong(store, prefix, named(prefix, manifest.files))


def _wrong(store: Store, prefix: str, items: list[Item]) -> Iterator[str]:
    there = listing(store, prefix)

    def one(item: Item) -> str | None:
        entry: Entry | None = there.get(item.key)
        if entry is None:
            return f"{store.config.url}/{item.key} is missing"
        if entry.size != item.size:
            return f"{store.config.url}/{item.key} has {entry.size} bytes and the manifest says {item.size}"
        return None if holds(store, entry, item) else f"{store.config.url}/{item.key} has other bytes than its SHA-256 in the manifest says"

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        yield from (line for line in pool.map(one, items) if line)
    yield from (f"{store.config.url}/{key} is not in the manifest" for key in strays(prefix, items, there))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.transfer.verify")
    parser.add_argument("--store", required=True, help="StoreConfig as JSON")
    parser.add_argument("--manifest", required=True, help="key of the manifest in the store")
    parser.add_argument("--sha256", help="of the manifest, where a pointer names it")
    chosen = parser.parse_args(arguments)
    try:
        prefix, _, name = chosen.manifest.rpartition("/")
        if name != NAME or not prefix:
            raise UserError(f"{chosen.manifest} is not a dataset's {NAME}: name the one below the dataset's folder")
        store = Store(StoreConfig.model_validate_json(chosen.store))
        manifest, lines = verify(store, prefix, chosen.sha256)
        wrong = 0
        for line in lines:
            wrong += 1
            print(line, flush=True)
    except FlywheelError as error:
        print(error, file=sys.stderr)
        return 1
    where = f"{store.config.url}/{prefix}"
    if wrong:
        print(f"{wrong} objects of {where} are not as the manifest says: delete them and {NAME} there, then copy {manifest.day} again", file=sys.stderr)
        return 1
    named_by = "the manifest's own hash is that of its pointer" if chosen.sha256 else "no pointer names this manifest, so its own hash was not compared"
    print(f"{where}: {manifest.total_files} objects, {manifest.total_bytes:,} bytes, each read back and equal to its SHA-256; {named_by}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
