"""Limits of a whole copy job: rate, money over its executions, and the same over two nodes of a Ray cluster."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestration.local.watch import progress_line
from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME
from ray_jobs.seam.configs import CopySettings
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.transfer.job import Progress
from ray_jobs.transfer.meter import Totals
from tests.transfer.made import PREFIX, content, make, transfer, upload


@pytest.fixture
def local(tmp_path: Path) -> tuple[Store, Store]:
    return Store(StoreConfig.local(tmp_path / "robots")), Store(StoreConfig.local(tmp_path / "compute"))


def test_bandwidth_is_kept_over_all_threads(local: tuple[Store, Store], dataset_folder: Path) -> None:
    """20 MiB at 10 MB/s: the first second's worth is there, for the rest one waits."""
    source, destination = local
    dataset = upload(dataset_folder, source)
    started = time.monotonic()
    assert transfer(source, destination, dataset, bytes_per_s=10e6).status == "ok"
    assert time.monotonic() - started > (20 * 2**20 - 10e6) / 10e6 * 0.99


def test_progress_tells_bytes_rate_time_left_and_cost(local: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = local
    told: list[dict[str, Any]] = []
    execution = Execution(source, "attempts/b/a1/x", report=told.append)
    result = transfer(source, destination, upload(dataset_folder, source), execution, bytes_per_s=8e6, egress_usd_per_gb=0.09)
    assert {"done", "total", "rate", "left_s", "egress_usd", "elapsed_s"} <= told[0].keys()
    assert any(0 < message["done"] < message["total"] and message["left_s"] > 0 for message in told)
    assert told[-1]["done"] == told[-1]["total"] and told[-1]["left_s"] == 0
    size = result.counts["bytes"]
    assert told[-1]["unit"] == "MB" and told[-1]["total"] == pytest.approx(size / 1e6, abs=1e-3)
    assert result.shown["egress_usd"].value == pytest.approx(size / 1e9 * 0.09, abs=1e-6)
    assert result.shown["copied_mb"].value == pytest.approx(size / 1e6, abs=1e-3)
    assert "14** objects" in result.shown["proof"].value and dataset_hash(result) in result.shown["proof"].value


@pytest.mark.parametrize(("size", "line"), [(0, "0/0 bytes"), (740_000, "740/740 kB"), (9_400_000, "9400/9400 kB"), (31_000_000_000, "31/31 GB")])
def test_a_watcher_reads_a_unit_that_says_something(local: tuple[Store, Store], size: int, line: str) -> None:
    told: list[dict[str, Any]] = []
    Progress(Execution(local[0], "attempts/b/a1/x", report=told.append), CopySettings(), "2026-01-05", size, size)(Totals(1, size, 1, size, size))
    assert f" copy {line}, {told[0]['rate']:.1f}/s" in progress_line("", "dataset_at_compute", told[0])


def dataset_hash(result: Any) -> str:
    return str(result.output["dataset"]["manifest_sha256"][:12])


def test_money_ends_the_day_not_what_is_proven(local: tuple[Store, Store], dataset_folder: Path) -> None:
    """The large object is over the cap, so no byte of it is read beyond it; a higher cap goes on where it stopped."""
    source, destination = local
    dataset = upload(dataset_folder, source)
    first = Execution(source, "attempts/b/a1/x", report=lambda message: None)
    stopped = transfer(source, destination, dataset, first, workers=1, egress_usd_per_gb=1.0, egress_cap_usd=0.012)
    assert stopped.status == "failed" and "stopped before its cap on egress" in str(stopped.reason) and "copying.egress_cap_usd" in str(stopped.reason)
    assert not destination.exists(f"{PREFIX}/{NAME}")
    read = json.loads(source.get(f"{first.prefix}/egress.json"))["read_bytes"]
    assert 0 < read <= 0.012e9
    again = Execution(source, "attempts/b/a2/x", report=lambda message: None)
    assert transfer(source, destination, dataset, again, egress_usd_per_gb=1.0, egress_cap_usd=0.012).status == "failed"
    finished = transfer(
        source, destination, dataset, Execution(source, "attempts/b/a3/x", report=lambda message: None), egress_usd_per_gb=1.0, egress_cap_usd=1.0
    )
    assert finished.status == "ok" and content(destination) == content(source)


def test_what_earlier_executions_have_read_counts(local: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = local
    dataset = upload(dataset_folder, source)
    source.put("attempts/b/a1/x/egress.json", json.dumps({"read_bytes": 10**9}).encode())
    failed = transfer(
        source, destination, dataset, Execution(source, "attempts/b/a2/x", report=lambda message: None), egress_usd_per_gb=1.0, egress_cap_usd=1.0
    )
    assert failed.status == "failed" and "1.0000 of 1.0000 USD are spent" in str(failed.reason)
    assert not list(destination.list(PREFIX))


def test_days_that_cost_nothing_pass_an_empty_purse(local: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = local
    dataset = upload(dataset_folder, source)
    assert transfer(source, destination, dataset).status == "ok"
    assert transfer(source, destination, dataset, egress_usd_per_gb=1.0, egress_cap_usd=0.0).status == "ok"


def test_only_a_capped_job_writes_down_what_it_reads(local: tuple[Store, Store], dataset_folder: Path) -> None:
    source, destination = local
    transfer(source, destination, upload(dataset_folder, source))
    assert not list(source.list("attempts"))


TWO_NODES = """
import json, os, sys, tempfile
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
os.environ["RAY_ADDRESS"] = cluster.address
import ray
from ray_jobs.driver import Execution
from ray_jobs.seam.configs import DayDataset
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.transfer.spread import nodes
from tests.transfer.made import transfer
ray.init(address=cluster.address, log_to_driver=False)
assert nodes() == 2
source, destination = (Store(StoreConfig.local(path)) for path in sys.argv[1:3])
for number, settings in enumerate(json.loads(sys.argv[4])):
    told = []
    execution = Execution(source, f"attempts/b/a{number}/x", report=told.append)
    result = transfer(source, destination, DayDataset.model_validate_json(sys.argv[3]), execution, **settings)
    print(json.dumps({"result": result.model_dump(mode="json"), "last": told[-1] if told else None, "shares": len(list(destination.list("receipts")))}))
ray.shutdown()
cluster.shutdown()
"""


def test_over_two_nodes(local: tuple[Store, Store], tmp_path: Path) -> None:
    """One purse for both nodes: first it is too small, then it is not. The objects were proven by several tasks."""
    source, destination = local
    (tmp_path / "dataset").mkdir()
    folder = make(tmp_path / "dataset", small=40, large=3)
    dataset = upload(folder, source)
    settings = [{"egress_usd_per_gb": 1.0, "egress_cap_usd": 0.03}, {"egress_usd_per_gb": 1.0, "egress_cap_usd": 1.0, "bytes_per_s": 1e9}]
    arguments = [*(str(tmp_path / name) for name in ("robots", "compute")), dataset.model_dump_json(), json.dumps(settings)]
    ended = subprocess.run([sys.executable, "-c", TWO_NODES, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    poor, rich = (json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{"))
    assert poor["result"]["status"] == "failed" and "of 0.0300 USD are spent" in poor["result"]["reason"]
    assert rich["result"]["status"] == "ok" and content(destination) == content(source)
    assert rich["result"]["counts"]["objects"] == 44 and rich["last"]["done"] == rich["last"]["total"]
    assert rich["shares"] >= 4
    read = sum(json.loads(source.get(f"attempts/b/a{number}/x/egress.json"))["read_bytes"] for number in range(2))
    assert rich["result"]["counts"]["bytes"] <= read


def test_a_share_has_large_and_small() -> None:
    from ray_jobs.transfer.plan import Item
    from ray_jobs.transfer.spread import shares

    items = [Item(f"{number}", f"{number}", size, "", "") for number, size in enumerate([1] * 20 + [1000] * 4)]
    parts = shares(items, 4)
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert {sum(item.size for item in part) for part in parts} == {1005}
    assert shares(items[:2], 8) == [[items[0]], [items[1]]]
