"""Checkpoints: what is read is what was written, the one before a damaged one is used, old ones go, and a store that fails is waited for."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer

from ray_jobs.seam import store as seam
from ray_jobs.seam.errors import StoreError
from ray_jobs.seam.store import Store, StoreConfig
from ray_jobs.training import checkpoint
from ray_jobs.training.checkpoint import Writer, newest, save, steps
from ray_jobs.training.loop import State
from testbed.proxy import Fault, FaultProxy

ONE, OTHER = "attempts/b/a1/one", "attempts/b/a1/other"


def at(step: int, width: int = 1000) -> State:
    draw = torch.Generator().manual_seed(step)
    return State(step, *(torch.randn(width, generator=draw) for _ in range(3)), curve=[(step, 0.5)])


def same(one: State | None, other: State) -> bool:
    vectors = checkpoint.VECTORS
    return one is not None and (one.step, one.curve) == (other.step, other.curve) and all(torch.equal(getattr(one, n), getattr(other, n)) for n in vectors)


def test_the_newest_whole_one_of_the_same_subject(store: Store) -> None:
    save(store, ONE, at(40), "this")
    save(store, OTHER, at(80), "other")
    assert same(newest(store, [ONE, OTHER, "attempts/b/a1/none"], "this"), at(40))
    assert newest(store, [ONE, OTHER], "no such") is None


@pytest.mark.parametrize("cut", [0, 5, 200, 1000, -8, -1])
def test_a_truncated_one_is_passed_over_and_told(store: Store, cut: int) -> None:
    save(store, ONE, at(40), "this")
    save(store, ONE, at(80), "this")
    key = f"{ONE}/checkpoints/000000080.safetensors"
    store.put(key, store.get(key)[:cut])
    said: list[str] = []
    assert same(newest(store, [ONE], "this", said.append), at(40))
    assert len(said) == 1 and key in said[0] and "the checkpoint before it is used" in said[0] and "\n" not in said[0]


def test_no_flipped_bit_is_read_as_a_state(store: Store) -> None:
    """Each of 200 places, header and numbers, whatever stands there."""
    save(store, ONE, at(80, 50), "this")
    key = f"{ONE}/checkpoints/000000080.safetensors"
    whole = store.get(key)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in {*range(0, header, 5), *range(header, len(whole), 7)}:
        store.put(key, whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = newest(store, [ONE], "this", lambda line: None)
        assert found is None or (same(found, at(80, 50)) and whole[place : place + 1].isspace()), place


def test_two_of_an_execution_stay_and_no_other_executions_go(store: Store) -> None:
    for step in (10, 20):
        save(store, OTHER, at(step), "this")
    store.put(f"{ONE}/checkpoints/000000099.safetensors", b"left by a worker that ran ahead of a damaged disk")
    for step in (10, 20, 30, 40):
        save(store, ONE, at(step), "this")
    assert steps(store, ONE) == [30, 40, 99] and steps(store, OTHER) == [10, 20]


def test_the_older_ones_stay_where_the_newer_is_not_what_was_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (10, 20):
        save(store, ONE, at(step), "this")
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, key, data: put(self, key, data[:-1] + b"?"))
    with pytest.raises(StoreError, match="not what was written"):
        save(store, ONE, at(30), "this")
    assert steps(store, ONE) == [10, 20, 30] and same(newest(store, [ONE], "this", lambda line: None), at(20))


class Slow(Store):
    """A folder whose writes wait for `gate`."""

    gate = threading.Event()

    def put(self, key: str, data: bytes) -> None:
        assert self.gate.wait(10)
        super().put(key, data)


def test_training_goes_on_while_one_is_written_and_changes_nothing_in_it(store: Store) -> None:
    slow = Slow(store.config)
    slow.gate.clear()
    writer, state = Writer(slow, ONE, "this"), at(1)
    assert writer.offer(state)
    for _ in range(3):
        state.step += 1
        state.weights += 1
        assert not writer.offer(state), "one at a time"
    slow.gate.set()
    writer.finish(state)
    assert steps(store, ONE) == [1, 4] and same(newest(store, [ONE], "this"), state)
    save(store, OTHER, at(1), "this")
    assert store.get(f"{ONE}/checkpoints/000000001.safetensors") == store.get(f"{OTHER}/checkpoints/000000001.safetensors")


def test_a_store_that_refuses_several_in_a_row_ends_it(store: Store) -> None:
    folder = store.root
    assert folder is not None
    writer = Writer(store, ONE, "this")
    (folder / ONE).parent.mkdir(parents=True)
    (folder / ONE).write_text("a file where the folder has to be")
    for step in range(1, checkpoint.FAILURES + 1):
        assert writer.offer(at(step)), "training goes on"
        _idle(writer)
    with pytest.raises(StoreError, match=r"cannot write .*/000000003\.safetensors"):
        writer.offer(at(9))
    with pytest.raises(StoreError):
        writer.finish(at(9))


def test_one_refusal_is_no_end(store: Store) -> None:
    folder = store.root
    assert folder is not None
    writer = Writer(store, ONE, "this")
    (folder / ONE).parent.mkdir(parents=True)
    (folder / ONE).write_text("for a while")
    for step in range(1, checkpoint.FAILURES):
        writer.offer(at(step))
        _idle(writer)
    (folder / ONE).unlink()
    writer.finish(at(9))
    assert same(newest(store, [ONE], "this"), at(9))
    (folder / OTHER).write_text("again, of another")
    other = Writer(store, OTHER, "this")
    other.offer(at(1))
    _idle(other)
    (folder / OTHER).unlink()
    other.finish(at(2))
    assert writer.saved == 9 and other.saved == 2


def _idle(writer: Writer) -> None:
    assert writer._thread is not None
    writer._thread.join(10)


@pytest.fixture(scope="module")
def front() -> Iterator[FaultProxy]:
    """A bucket `checkpoints` in moto's S3, behind a proxy that disturbs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "TRAIN", "aws_secret_access_key": "TRAIN"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys).create_bucket(Bucket="checkpoints")
    with FaultProxy((host, port), "127.0.0.1") as proxy, pytest.MonkeyPatch.context() as environ:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            environ.setenv(f"TRAIN_{name}", "TRAIN")
        yield proxy
    server.stop()


def behind(front: FaultProxy) -> Store:
    return Store(StoreConfig(url="s3://checkpoints", endpoint=front.url, region="us-east-1", credentials="TRAIN"))


@pytest.mark.parametrize("fault", [Fault("answer", status=503), Fault("stall", seconds=0.3), Fault("reset")], ids=lambda fault: fault.kind)
def test_a_store_that_fails_for_a_while_is_waited_for_and_training_goes_on(front: FaultProxy, fault: Fault) -> None:
    store, execution = behind(front), f"{ONE}-{fault.kind}"
    writer, state, began = Writer(store, execution, "this"), at(1, 100_000), time.monotonic()
    front.set(fault)
    assert writer.offer(state)
    while time.monotonic() < began + 1.0:
        state.step += 1
        assert not writer.offer(state), "still at the first"
        time.sleep(0.01)
    assert state.step > 20
    front.set(None)
    _idle(writer)
    assert writer.saved == 1 and same(newest(store, [execution], "this"), at(1, 100_000))
    assert any(seen.outcome == fault.kind for seen in front.seen())


def test_a_store_that_never_comes_back_ends_it_after_its_budget(front: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    writer = Writer(behind(front), OTHER, "this")
    with front.disturbed(Fault("answer", status=503)), pytest.raises(StoreError, match="503") as error:
        writer.finish(at(1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["flip", "shorten"])
def test_what_a_bad_wire_brings_back_is_no_checkpoint(front: FaultProxy, kind: Literal["flip", "shorten"]) -> None:
    store, execution = behind(front), f"{ONE}-{kind}"
    save(store, execution, at(1), "this")
    with front.disturbed(Fault(kind, only=lambda method, path: path.endswith(".safetensors"))):
        assert newest(store, [execution], "this", lambda line: None) is None
        with pytest.raises(StoreError, match="not what was written"):
            save(store, execution, at(2), "this")
    assert same(newest(store, [execution], "this"), at(2))
