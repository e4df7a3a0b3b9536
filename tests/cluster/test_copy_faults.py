"""The copy between two real S3 servers while the network, the servers or others misbehave. Nothing wrong is ever published, and errors say what to do."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_jobs.driver import Execution
from ray_jobs.packing.manifest import NAME
from ray_jobs.seam.errors import Denied, StoreError
from testbed.proxy import Fault
from tests.cluster.clouds import Cloud, cloud
from tests.cluster.copying import Pair, document, hurried, of, once, pair
from tests.transfer.made import LARGE, PREFIX, SMALL, content, flip, make

pytestmark = pytest.mark.testbed  # the servers' program is compiled by the project's own testbed
BOTH = pytest.mark.parametrize("path", [SMALL, LARGE])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, Cloud]]:
    root = tmp_path_factory.mktemp("clouds")
    with cloud("ROBOTS", root / "robots") as here, cloud("COMPUTE", root / "compute") as there:
        os.environ.update(here.environment() | there.environment())
        yield here, there


@pytest.fixture
def two(clouds: tuple[Cloud, Cloud], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    hurried(monkeypatch)
    for who in clouds:
        for name, value in who.environment().items():
            monkeypatch.setenv(name, value)
    with pair(*clouds, folder) as made:
        yield made


def writes(path: str) -> object:
    """The writes of an object: whole, or its parts."""
    return of(path, "PUT")


@BOTH
def test_a_flipped_bit_on_the_way_in(two: Pair, path: str) -> None:
    two.front.set(Fault("flip", only=of(path), times=1))
    assert two.copy().status == "ok"
    two.whole()
    assert two.front.count(of(path)) == (2 if path == SMALL else 6), "it was read once more, and only it"


@BOTH
def test_a_bit_that_flips_every_time_fails_the_day_by_name(two: Pair, path: str) -> None:
    two.front.set(Fault("flip", only=of(path)))
    failed = two.copy()
    assert failed.status == "failed" and path in str(failed.reason) and "pack the day again" in str(failed.reason)
    assert not two.published() and not two.destination.exists(f"{PREFIX}/{path}")
    two.nothing_wrong()


@BOTH
def test_a_flipped_bit_on_the_way_out(two: Pair, path: str) -> None:
    """The server compares the bytes with the signed hash and refuses them; the client itself does not try again."""
    two.back.set(Fault("flip_upload", only=writes(path), times=1))
    assert two.copy().status == "ok"
    two.whole()
    assert any(seen.outcome == "flip_upload" for seen in two.back.seen())


def test_a_bit_that_flips_on_every_way_out_is_a_store_that_fails(two: Pair) -> None:
    two.back.set(Fault("flip_upload", only=writes(LARGE)))
    with pytest.raises(StoreError, match=f"cannot write .*{LARGE}.*400") as caught:
        two.copy()
    assert caught.value.failure_class == "infrastructure" and "\n" not in str(caught.value)
    assert not two.published()
    two.quiet()
    assert two.copy().status == "ok"
    two.whole()


@BOTH
@pytest.mark.parametrize("kind", ["cut", "shorten"])
def test_a_truncated_answer(two: Pair, path: str, kind: str) -> None:
    """Cut by the end of the connection, or a shorter answer that looks whole."""
    two.front.set(Fault(kind, only=of(path), times=1))  # type: ignore[arg-type]
    assert two.copy().status == "ok"
    two.whole()


def test_answers_that_are_always_short_fail_the_day(two: Pair) -> None:
    two.front.set(Fault("shorten", only=of(SMALL)))
    failed = two.copy()
    assert failed.status == "failed" and SMALL in str(failed.reason)
    two.nothing_wrong()
    assert not two.published()


@pytest.mark.parametrize("path", [SMALL, LARGE])
@pytest.mark.parametrize("side", ["front", "back"])
def test_a_stalled_request_is_given_up_and_asked_again(two: Pair, side: str, path: str) -> None:
    stalled = getattr(two, side)
    stalled.set(Fault("stall", seconds=20, only=of(path) if side == "front" else writes(path), times=1))
    assert two.copy().status == "ok"
    two.whole()
    assert [seen.outcome for seen in stalled.seen()].count("stall") == 1


@pytest.mark.parametrize("side", ["front", "back"])
def test_two_fifths_of_the_requests_are_reset(two: Pair, side: str) -> None:
    shaky = getattr(two, side)
    shaky.set(Fault("reset", share=0.4))
    assert two.copy().status == "ok"
    two.quiet()
    two.whole()
    assert [seen.outcome for seen in shaky.seen()].count("reset") > 1


def test_a_store_that_resets_everything(two: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch, retries=2)
    two.back.set(Fault("reset", only=lambda method, path: method == "PUT"))
    with pytest.raises(StoreError, match=f"cannot write {two.configs()[1].url}/{PREFIX}"):
        two.copy()
    two.quiet()
    two.nothing_wrong()
    assert not two.published() and two.copy().status == "ok"
    two.whole()


def test_a_slow_drip_is_slower_than_a_request_may_be_and_goes_on_where_it_was(two: Pair) -> None:
    """8 MiB at 2 MB/s against requests of at most two seconds: what has come is kept, the rest is asked for."""
    two.front.set(Fault("drip", seconds=0.03, only=of(LARGE)))
    assert two.copy().status == "ok"
    two.quiet()
    two.whole()
    assert two.front.count(of(LARGE)) > 3, "the parts were resumed"


@pytest.mark.parametrize("side", ["front", "back"])
def test_a_storm_of_503(two: Pair, side: str) -> None:
    stormy = getattr(two, side)
    stormy.set(Fault("answer", status=503, code="SlowDown", share=0.5))
    assert two.copy().status == "ok"
    two.quiet()
    two.whole()
    assert [seen.outcome for seen in stormy.seen()].count("answer") > 1


def test_a_storm_that_does_not_end(two: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the job as infrastructure, which the step tries again; what was proven before it is not copied twice."""
    hurried(monkeypatch, retries=2)
    two.front.set(Fault("answer", status=503, code="SlowDown", only=of(LARGE)))
    with pytest.raises(StoreError, match=f"cannot read .*{LARGE}.*503") as caught:
        two.copy(workers=1)
    assert caught.value.failure_class == "infrastructure" and not two.published()
    two.quiet()
    two.nothing_wrong()
    done = len(content(two.destination))
    resumed = two.copy()
    assert resumed.status == "ok" and resumed.counts["skipped"] == done
    two.whole()


def test_a_412_means_that_the_source_has_changed(two: Pair) -> None:
    two.front.set(Fault("answer", status=412, code="PreconditionFailed", only=of(LARGE)))
    failed = two.copy()
    assert failed.status == "failed" and f"{LARGE} changed while it was being copied" in str(failed.reason)
    assert not two.published()
    two.nothing_wrong()


@pytest.mark.parametrize(("path", "reads"), [(SMALL, 1), (LARGE, 2)])
def test_a_source_that_changes_during_the_copy(two: Pair, path: str, reads: int) -> None:
    """The real server's 412: a small object that changed after the listing, a large one after its first part."""
    two.front.set(Fault("answer", only=once(of(path), lambda: flip(two.source, path), reads)))
    failed = two.copy()
    assert failed.status == "failed" and f"{path} changed while it was being copied" in str(failed.reason)
    assert not two.published() and not two.destination.exists(f"{PREFIX}/{path}")
    two.nothing_wrong()


@pytest.mark.parametrize("who", ["ROBOTS", "COMPUTE"])
@pytest.mark.parametrize("part", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
def test_wrong_credentials(two: Pair, monkeypatch: pytest.MonkeyPatch, who: str, part: str) -> None:
    monkeypatch.setenv(f"{who}_{part}", "nobody-knows-this")
    with pytest.raises(Denied, match=rf"refuses the credentials \(\w+\): correct {who}_…") as caught:
        two.copy()
    assert caught.value.failure_class == "user" and "\n" not in str(caught.value)
    assert "nobody-knows-this" not in str(caught.value)
    two.nothing_wrong()
    assert not two.published()


def test_credentials_that_are_withdrawn_during_the_copy(clouds: tuple[Cloud, Cloud], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)
    with cloud("BRIEFLY", tmp_path / "briefly") as there:
        for name, value in there.environment().items():
            monkeypatch.setenv(name, value)
        with pair(clouds[0], there, folder) as two:
            two.back.set(Fault("answer", only=once(writes(LARGE), there.dismiss)))
            with pytest.raises(Denied, match="correct BRIEFLY_…"):
                two.copy()
            assert not any(name == f"{PREFIX}/{NAME}" for name in _keys(there, two))


def _keys(there: Cloud, two: Pair) -> list[str]:
    listed = there.client().list_objects_v2(Bucket="bucket", Prefix=two.token)
    return [each["Key"].removeprefix(f"{two.token}/") for each in listed.get("Contents", [])]


def test_a_session_token_that_expires_during_the_copy(two: Pair) -> None:
    """As AWS answers it; versitygw has no session tokens."""
    two.back.set(Fault("answer", status=400, code="ExpiredToken", only=writes(LARGE)))
    with pytest.raises(StoreError, match=f"{LARGE}: the credentials have expired .*renew COMPUTE_") as caught:
        two.copy()
    assert caught.value.failure_class == "infrastructure", "a new attempt has new ones"
    two.quiet()
    two.nothing_wrong()
    assert two.copy().status == "ok"
    two.whole()


def test_the_answer_to_a_successful_put_is_lost(two: Pair) -> None:
    two.back.set(Fault("lose_answer", only=writes(SMALL), times=1))
    assert two.copy().status == "ok"
    two.whole()


def test_the_answer_to_the_end_of_a_multipart_upload_is_lost(two: Pair) -> None:
    """Asked again, the server knows no such upload: the object is read back, and is there."""
    two.back.set(Fault("lose_answer", only=lambda method, url: method == "POST" and LARGE in url and "uploadId=" in url, times=1))
    result = two.copy()
    assert result.status == "ok" and result.counts["copied"] == result.counts["objects"]
    two.whole()
    assert [seen.outcome for seen in two.back.seen()].count("lose_answer") == 1


def test_an_upload_whose_end_takes_longer_than_a_request_may(two: Pair) -> None:
    """Asked again, the server knows no such upload, and has no object yet: it is awaited. Here the test puts it there three seconds later."""
    late = threading.Timer(3.0, lambda: two.destination.put_file(f"{PREFIX}/{LARGE}", two.folder / LARGE))

    def ends(method: str, url: str) -> bool:
        asked = method == "POST" and LARGE in url and "uploadId=" in url
        if asked and not late.is_alive():
            late.start()
        return asked

    two.back.set(Fault("answer", status=404, code="NoSuchUpload", only=ends, times=1))
    result = two.copy()
    assert result.status == "ok" and result.counts["copied"] == result.counts["objects"] and late.finished.is_set()
    two.whole()


def test_an_upload_that_is_said_to_have_ended_before_its_object_shows(two: Pair) -> None:
    """What versitygw says when it is asked a second time to end an upload of gigabytes."""
    two.back.set(Fault("answer", status=404, code="NoSuchKey", only=of(LARGE, "HEAD"), times=3))
    assert two.copy().status == "ok"
    two.whole()
    assert [seen.outcome for seen in two.back.seen()].count("answer") == 3


def test_the_destination_holds_other_objects_of_these_names(two: Pair) -> None:
    two.destination.put(f"{PREFIX}/{SMALL}", b"x" * two.source.head(f"{PREFIX}/{SMALL}").size)
    two.destination.put(f"{PREFIX}/{LARGE}", b"shorter")
    two.destination.put(f"{PREFIX}/{NAME}", b"{}")
    assert two.copy().status == "ok"
    two.whole()


def test_the_destination_holds_more_than_the_manifest_names(two: Pair) -> None:
    two.destination.put(f"{PREFIX}/data/chunk-000/file-999.parquet", b"of somebody else")
    failed = two.copy()
    assert failed.status == "failed" and "file-999.parquet (1 such)" in str(failed.reason) and "delete it" in str(failed.reason)
    assert not two.published()
    two.destination.delete(f"{PREFIX}/data/chunk-000/file-999.parquet")
    again = two.copy()
    assert again.status == "ok" and again.counts["copied"] == 0
    two.whole()


def test_two_copiers_at_once(two: Pair) -> None:
    together = threading.Barrier(2)

    def one(number: int) -> str:
        together.wait(10)
        return two.copy(Execution(two.source, f"attempts/b/a1/{number}", report=lambda message: None)).status

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == ["ok", "ok"]
    two.whole()
    assert two.copy().counts["copied"] == 0


def test_a_full_destination(clouds: tuple[Cloud, Cloud], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose disk (12 MB of memory, in a mount namespace of its own) has no room for the large object."""
    hurried(monkeypatch, retries=2)
    mount = f'mount -t tmpfs -o size=12m none "{tmp_path}/full/objects" && exec "$@"'
    with cloud("FULL", tmp_path / "full", before=["unshare", "--mount", "sh", "-c", mount, "sh"]) as there:
        for name, value in there.environment().items():
            monkeypatch.setenv(name, value)
        with pair(clouds[0], there, folder) as two:
            with pytest.raises(StoreError, match=f"cannot write .*{LARGE}: the store is full: make room") as caught:
                two.copy()
            assert caught.value.failure_class == "infrastructure" and "\n" not in str(caught.value)
            assert not two.published() and not two.destination.exists(f"{PREFIX}/{LARGE}")
            two.nothing_wrong()


def test_a_clock_that_is_twenty_minutes_wrong(two: Pair) -> None:
    program = "import sys; from tests.cluster.copying import transfer_of; transfer_of(sys.argv[1])"
    command = ["faketime", "-f", "-20m", sys.executable, "-c", program, document(two)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0 and "differ by more than 15 minutes: set this machine's (NTP)" in ended.stderr.strip().splitlines()[-1]
    two.nothing_wrong()
    assert not two.published()
