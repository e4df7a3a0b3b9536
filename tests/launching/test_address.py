"""Somebody's Ray cluster at an address: a real `ray start --head` that knows nothing of this checkout, and one that answers nonsense."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from orchestration.launching import head as heads
from orchestration.launching import ray_api
from orchestration.launching.address import AddressTarget
from orchestration.launching.code import archive, code
from orchestration.launching.effects import Denied, InvalidSpec, Job, Unreachable
from orchestration.launching.head import Head
from orchestration.launching.places import Address, build
from orchestration.launching.protocol import run_step
from orchestration.launching.ray_api import job_of
from orchestration.launching.reconcile import reconcile
from orchestration.launching.shell import Ports, perform
from orchestration.launching.work import Attempt, Budgets, Outcome, Resources
from ray_jobs.seam import layout
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.results import read_pointer
from ray_jobs.seam.store import Store, StoreConfig
from tests.launching.bench import BUDGET_S, DAY, Abandoned, Bench, forgotten, gone, until

TINY = "tests/launching/jobs/tiny.py"

NOWHERE = 10**13  # bytes: no node has them, and Ray's fixed-point numbers hold them, which they do not from 10**15 on


@dataclass
class Cluster:
    """Whoever runs it may stop it and start it again at its address; each start has a token of its own, which they put into a file."""

    folder: Path
    s3: str
    port: int = 0
    head: Head = field(init=False)

    def __post_init__(self) -> None:
        """Its processes know the S3 that is near it: Ray's own client AWS_*, our stores LAB_*."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        keys = {f"{name}_{key}": "testing" for name in ("AWS", "LAB") for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
        self.head = Head(self.folder, num_cpus=4, env={"PATH": path, "PYTHONPATH": "", "AWS_ENDPOINT_URL": self.s3, "AWS_DEFAULT_REGION": "us-east-1", **keys})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return str(self.folder / "token")

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if self.port:
                free = heads._free_ports
                patch.setattr(heads, "_free_ports", lambda count: [self.port, *free(count - 1)])
            state = self.head.ensure()
        self.port = state.port
        Path(self.token).write_text(Path(state.token_path).read_text() + "\n")

    def target(self, store: StoreConfig, token: str | None = None) -> AddressTarget:
        return AddressTarget(self.url, token or self.token, store, lambda sha256: (self.folder / "flywheel.zip").as_uri())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), f"http://{host}:{port}")
    (cluster.folder / "flywheel.zip").write_bytes(archive({**code().files, TINY: Path(TINY).read_bytes()}))
    cluster.start()
    yield cluster
    cluster.head.stop()
    moto.stop()


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path) -> Bench:
    config = StoreConfig.local(tmp_path / "store")
    (tmp_path / "marks").mkdir()
    return Bench(Store(config), cluster.target(config), tmp_path / "marks")


def attempt(bench: Bench, number: int = 1, memory: int | None = None, cpus: float = 0.0, **changed: Any) -> Attempt:
    """An attempt that the store does not know: its driver fails at once, if it ever starts."""
    fixed = {"base": f"alone-{bench.marks.parent.name[:20].strip('-_').replace('_', '-')}", "number": number, "deployment": "local", "asset": "episodes"}
    run = {"generation": "g", "root_run": "r", "run_id": "r", "series": "r", "days": (DAY,), "module": "tests.launching.jobs.tiny", "config": {}, "code": ""}
    return Attempt.model_validate({**fixed, **run, "resources": Resources(memory=memory, num_cpus=cpus), **changed})


def at_work(bench: Bench) -> bool:
    return any(job.alive for job in bench.target.jobs("local"))


def as_ray_says(bench: Bench, name: str) -> Job:
    """The job as a launcher sees it that has never asked it to stop."""
    assert isinstance(bench.target, AddressTarget)
    job = bench.target.api.find(name, "any")
    assert job is not None
    return job


def test_a_job_runs_from_the_archive_alone_and_its_log_is_read_by_offset(bench: Bench) -> None:
    seen: list[str] = []

    def message(content: dict[str, Any]) -> None:
        if content["method"] == "report_custom_message" and not seen:
            (name,) = [job.name for job in bench.target.jobs("local")]
            whole = bench.target.logs(name)
            seen.extend([whole, bench.target.logs(name, 20)])

    done = perform(run_step(bench.work(), bench.run()), Ports(bench.store, bench.target, lambda: bench.status, bench.lines.append, message))
    pointer = read_pointer(bench.store, "episodes", DAY)
    assert pointer is not None and done.days[DAY].pointer == pointer and done.execution == bench.starts()[0].name
    assert "Running entrypoint" in seen[0] and seen[1] == seen[0][20 : 20 + len(seen[1])]
    assert bench.target.logs("nothing-of-that-name") == ""


def test_code_and_results_travel_through_an_object_store(bench: Bench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"LAB_{key}", "testing")
    monkeypatch.setenv("LAB_TOKEN", Path(cluster.token).read_text())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    boto3.client("s3", endpoint_url=cluster.s3, region_name="us-east-1", **keys).create_bucket(Bucket="lab")
    bench.store = Store(StoreConfig(url="s3://lab/store", endpoint=cluster.s3, region="us-east-1", credentials="LAB"))
    bench.store.put(layout.code("ok"), (cluster.folder / "flywheel.zip").read_bytes())  # as if this were the code's hash
    place = Address(kind="address", url=cluster.url, token="LAB_TOKEN")
    bench.target = build("lab", place, cluster.folder, bench.store.config)
    assert bench.perform(bench.work()).days[DAY].state == "published" and len(bench.starts()) == 1
    with pytest.raises(UserError, match="cannot reach the store file:"):
        build("lab", place, cluster.folder, StoreConfig(url="file:///nowhere"))


def test_a_launcher_that_starts_again_adopts_the_job(bench: Bench, cluster: Cluster) -> None:
    with pytest.raises(Abandoned):
        bench.perform(bench.work(waits=True), until=lambda: bool(bench.starts()))
    bench.go()
    bench.target = cluster.target(bench.store.config)
    outcome = bench.perform(bench.work(waits=True), bench.run(2, root=1, retry=True))
    assert outcome.days[DAY].state == "published" and not outcome.launched
    assert len(bench.starts()) == 1 and len(bench.pointers()) == 1


def test_two_steps_at_once_make_one_execution(bench: Bench, cluster: Cluster) -> None:
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(bench.perform(bench.work()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BUDGET_S)
    assert [outcome.days[DAY].state for outcome in outcomes] == ["published", "published"]
    assert len(bench.starts()) == 1 and len(bench.pointers()) == 1


def test_a_cancelled_step_stops_its_job_and_an_orphan_is_reconciled(bench: Bench) -> None:
    def interrupt(content: dict[str, Any]) -> None:
        if content["method"] == "report_custom_message":
            bench.status = "CANCELING"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(run_step(bench.work(waits=True), bench.run()), Ports(bench.store, bench.target, lambda: bench.status, bench.lines.append, interrupt))
    assert gone(bench.pid()) and not bench.pointers() and not at_work(bench)
    bench.status = "STARTED"
    with pytest.raises(Abandoned):
        bench.perform(bench.work(waits=True), bench.run(2, root=2), until=lambda: len(bench.starts()) > 1)
    bench.await_start(2)
    assert at_work(bench) and reconcile(bench.store, bench.target, "local", lambda root: False)
    until(lambda: gone(bench.pid()))
    until(lambda: forgotten(bench, lambda root: False))


def test_a_name_that_is_taken_by_another_spec_is_refused(bench: Bench) -> None:
    uid = bench.target.ensure(attempt(bench, memory=NOWHERE))
    assert bench.target.ensure(attempt(bench, memory=NOWHERE)) == uid
    with pytest.raises(InvalidSpec, match="not ours"):
        bench.target.ensure(attempt(bench, module="another"))
    bench.target.stop(attempt(bench).name, uid)


def test_a_job_that_fits_nowhere_waits_and_is_given_up_when_asked_to_stop(bench: Bench, cluster: Cluster) -> None:
    asked = attempt(bench, memory=NOWHERE)
    uid = bench.target.ensure(asked)
    time.sleep(1.0)
    job = bench.target.find(asked.name)
    assert job is not None and job.phase == "queued" and job.uid == uid
    bench.target.stop(asked.name, "another uid")
    assert (job := bench.target.find(asked.name)) is not None and job.phase == "queued"
    bench.target.stop(asked.name, uid)
    assert (job := bench.target.find(asked.name)) is not None and job.phase == "stopped"
    bench.target.delete(asked.name, uid)  # Ray refuses, and it is no error


def test_a_job_that_was_given_up_does_no_work_when_its_turn_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**bench.work(waits=True).config_for((DAY,)), "days": [DAY]}
    first, second = attempt(bench, 1, cpus=4, config=config), attempt(bench, 2, cpus=1, config=config)
    for each in (first, second):
        bench.store.put(each.key, each.model_dump_json().encode())
    uid = bench.target.ensure(first)
    bench.await_start()
    other = bench.target.ensure(second)
    bench.target.stop(second.name, other)
    assert (job := bench.target.find(second.name)) is not None and job.phase == "stopped"
    bench.store.put(layout.ended(second.base, second.number), b"{}")  # which the protocol writes next
    bench.target.stop(first.name, uid)
    until(lambda: not as_ray_says(bench, second.name).alive)
    assert len(bench.starts()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(ray_api, "WATCHED_S", 3600.0)  # on a busy machine the five seconds may be over by now
        bench.target.delete(second.name, other)
        assert not as_ray_says(bench, second.name).alive, "Ray still watches over it, and would write that it failed"

    def deleted() -> bool:
        bench.target.delete(second.name, other)
        return bench.target.find(second.name) is None

    until(deleted)


@pytest.mark.parametrize(
    ("token", "value", "says"),
    [
        ("RAY_OF_LAB", "0" * 64, 'refuses us (403, "Forbidden: Invalid authentication token"): renew the token in RAY_OF_LAB'),
        ("RAY_OF_LAB", None, "is not in RAY_OF_LAB (KeyError): put it there"),
        ("/nowhere/token", None, "is not in /nowhere/token (FileNotFoundError): put it there"),
    ],
)
def test_a_refused_token_is_one_line_that_says_which(
    bench: Bench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, token: str, value: str | None, says: str
) -> None:
    if value:
        monkeypatch.setenv(token, value)
    bench.target = cluster.target(bench.store.config, token)
    with pytest.raises(Denied) as refused:
        bench.perform(bench.work())
    assert says in str(refused.value) and "\n" not in str(refused.value) and not bench.starts()


def test_without_a_token_the_error_says_what_to_set(bench: Bench, cluster: Cluster) -> None:
    with pytest.raises(Denied, match=r"401.*set `token` of this target"):
        AddressTarget(cluster.url, None, bench.store.config, str).jobs("local")


def test_a_cluster_that_was_started_again_knows_no_job_and_gets_the_next_attempt(bench: Bench, cluster: Cluster) -> None:
    def again() -> None:
        bench.await_start()
        cluster.head.stop()
        bench.go()
        cluster.start()

    before = bench.target.api.session()
    thread = threading.Thread(target=again)
    thread.start()
    outcome = bench.perform(replace(bench.work(waits=True), budgets=Budgets(unreachable=120.0)))
    thread.join(BUDGET_S)
    assert bench.target.api.session() != before
    assert outcome.days[DAY].state == "published" and str(outcome.attempt).endswith("-a2")
    assert len(bench.starts()) == 2 and len(bench.pointers()) == 1
    assert any("infrastructure" in line and "vanished" in line for line in bench.lines)


def test_a_cluster_that_is_gone_is_unreachable_and_no_job_of_it_is_called_gone(bench: Bench, cluster: Cluster) -> None:
    cluster.head.stop()
    for ask in (lambda: bench.target.find("any"), lambda: bench.target.jobs("local"), lambda: bench.target.ensure(attempt(bench))):
        with pytest.raises(Unreachable, match="does not answer") as refused:
            ask()
        assert not isinstance(refused.value, Denied)


@pytest.fixture
def answering() -> Iterator[Any]:
    """A server at whose address something answers: `answer(status, body)` says what."""
    said = [(500, "")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = said[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(status: int, body: str) -> AddressTarget:
        said[0] = (status, body)
        return AddressTarget(f"http://127.0.0.1:{server.server_port}/", None, StoreConfig(url="file:///nowhere"), str)

    yield answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(500, "Traceback"), (503, ""), (404, "<html>nothing here</html>"), (200, "<html>please log in</html>"), (200, "{}"), (200, "")]
)
def test_what_is_no_ray_dashboard_or_none_now_is_unreachable(answering: Any, status: int, body: str) -> None:
    target = answering(status, body)
    for ask in (lambda: target.find("any"), lambda: target.jobs("local")):
        with pytest.raises(Unreachable):
            ask()


def test_what_a_pending_job_waits_for_is_said_after_a_while() -> None:
    document = {"submission_id": "x", "status": "PENDING", "message": "It may be\nwaiting for resources", "start_time": 1000_000}
    assert job_of(document, "s", now=1001.0).note == "" and job_of(document, "s", now=1060.0).note == "It may be waiting for resources"
    assert job_of({**document, "status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}, "s", 1060.0).failure == "capacity"
    assert job_of(document, "s", 0.0).uid != job_of(document, "t", 0.0).uid
