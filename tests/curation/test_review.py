"""The review page: moments of planted defects, pages that hold foreign text harmlessly, and a folder that is whole."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.cli import main
from orchestration.curation.decide import decide
from orchestration.curation.review.build import build
from orchestration.curation.review.moments import FINDERS, moment
from orchestration.curation.review.page import Entry, checks, page, plot
from orchestration.curation.review.plots import Line, Moment
from orchestration.curation.review.recorded import Looks, Recorded, Samples, read
from orchestration.curation.thresholds import Thresholds
from orchestration.settings import current
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.episode import clip_key
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import MeasureSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.layout import pointer
from ray_jobs.seam.results import Pointer
from ray_jobs.seam.store import Store
from ray_jobs.seam.tables import VERDICTS, to_bytes
from tests.curation.synthetic import make, save, table

DAY = "2026-09-21"
EVIL = "</script><img src=x onerror=alert(1)>\"'&"


def ordinary(count: int = 60, rate: float = 10.0) -> Recorded:
    """A waving arm with a camera that sees it, all at 10 Hz."""
    t_s = np.arange(count) / rate
    state = np.stack([np.sin(t_s), np.cos(2 * t_s), 0.3 * np.sin(3 * t_s)], axis=1)
    camera = np.zeros((count, 0))
    streams = {
        "state": Samples(t_s, t_s, state),
        "action": Samples(t_s, t_s, np.gradient(state, axis=0)),
        "camera:front": Samples(t_s, t_s, camera),
    }
    looks = Looks(t_s, np.full(count, 120.0), np.append(np.nan, np.full(count - 1, 5.0)), np.full(count, 300.0))
    return Recorded(streams, {"front": {}, "wrist": {}}, {"state": ("yaw", "lift", "grip"), "action": ()}, lambda camera: looks)


def altered(name: str, change: Any) -> Recorded:
    """`change` edits copies of the arrays of the stream, t_s, log_s and values, in place."""
    made = ordinary()
    old = made.streams[name]
    arrays = old.t_s.copy(), old.log_s.copy(), old.values.copy()
    change(*arrays)
    return replace(made, streams={**made.streams, name: Samples(*arrays)})


def seen(**changes: tuple[slice, float]) -> Recorded:
    made = ordinary()
    looks = made.looks("front")
    arrays = {name: getattr(looks, name).copy() for name in ("light", "change", "sharp")}
    for name, (where, value) in changes.items():
        arrays[name][where] = value
    return replace(made, looks=lambda camera: Looks(looks.t_s, **arrays))


def late(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    t_s[30:] += 0.7
    log_s[30:] += 0.7


def stepped(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    t_s[30:] += 0.7


def back(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    t_s[30] -= 0.35


def missing(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    values[30:33, 1] = np.nan


def jumped(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    values[30, 2] += 4.0


def jerked(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    values[30, 0] += 4.0


def stood(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    values[30:45] = values[30]


def froze(t_s: np.ndarray, log_s: np.ndarray, values: np.ndarray) -> None:
    values[30:45, 1] = values[30, 1]


@pytest.mark.parametrize(
    ("reason", "recorded", "span"),
    [
        ("gap: state is silent for 0.80 s", altered("state", late), (2.9, 3.7)),
        ("gap: something is silent", altered("camera:front", late), (2.9, 3.7)),
        ("clock_step: action time jumps by 0.70 s", altered("action", stepped), (2.9, 3.0)),
        ("clock_backward: state time runs backwards 1 times", altered("state", back), (2.9, 3.0)),
        ("not_a_number: 5.0% of the states are NaN", altered("state", missing), (3.0, 3.2)),
        ("jump: state axis 2 moves 4 in one sample", altered("state", jumped), (2.9, 3.1)),
        ("jump: the worst axis is looked for", altered("state", jumped), (2.9, 3.1)),
        ("spike: state axis 2 leaves its course", altered("state", jumped), (2.9, 3.1)),
        ("spike: the worst axis is looked for", altered("state", jumped), (2.9, 3.1)),
        ("rough_motion: state.roughness is 3, usually 1", altered("state", jumped), (2.9, 3.1)),
        ("rough_commands: action.roughness is 3, usually 1", altered("action", jerked), (2.9, 3.1)),
        ("repeated_states: state.repeats is 0.3, usually 0", altered("state", stood), (3.0, 4.4)),
        ("dead_commands: the commands never change while the joints move", altered("action", froze), (3.0, 4.4)),
        ("clipped: action axis 1 lies at its own extreme", altered("action", froze), (3.0, 4.4)),
        ("task_failed: the block ends 3 sides from the target", ordinary(), (5.4, 5.9)),
        ("marked_failed: the recording says itself that it did not succeed", ordinary(), (5.4, 5.9)),
        ("out_of_range: state axis 2 leaves the fleet's range", altered("state", jumped), (2.9, 3.1)),
        ("idle: the arm stands still for 1.5 s on end", altered("state", stood), (3.1, 4.4)),
        ("stuck_joint: state axis 1 keeps one value", altered("state", froze), (3.0, 4.4)),
        ("start_offset: state axis 0 starts +0.3", ordinary(), (0.0, 0.5)),
        ("truncated: it ends in full motion", ordinary(), (5.4, 5.9)),
        ("black: 17% of the front frames hold no light", seen(light=(slice(30, 40), 3.0)), (3.0, 3.9)),
        ("overexposed: 17% of the front frames are half white", seen(light=(slice(30, 40), 250.0)), (3.0, 3.9)),
        ("frozen_camera: 17% of the front frames stand", seen(change=(slice(30, 40), 0.0)), (3.0, 3.9)),
        ("repeated_frames: image.stutter of front is 0.1, usually 0", seen(change=(slice(30, 31), 0.5)), (3.0, 3.0)),
        ("badly_exposed: image.light of front is 60, usually 120", seen(light=(slice(30, 40), 60.0)), (3.0, 3.9)),
        ("low_contrast: image.contrast of front is 5, usually 40", seen(sharp=(slice(30, 31), 3.0)), (3.0, 3.0)),
        ("noisy_picture: image.sharp of front is 900, usually 300", seen(sharp=(slice(30, 31), 900.0)), (3.0, 3.0)),
        ("blur: front is 10% as sharp as usual", seen(sharp=(slice(30, 31), 3.0)), (3.0, 3.0)),
        ("corrupt_picture: front breaks", seen(change=(slice(30, 31), 90.0)), (3.0, 3.0)),
        ("command_lag: apart", ordinary(), None),
        ("axis_flip: action axis 1 goes against its joint", ordinary(), None),
        ("camera_lag: front shows motion +0.4 s late", ordinary(), None),
        ("camera_moved: nobody wrote a finder for this", ordinary(), None),
    ],
)
def test_the_moment_is_where_the_defect_was_planted(reason: str, recorded: Recorded, span: tuple[float, float] | None) -> None:
    found = moment(reason, recorded)
    assert found is not None and found.lines and all(len(line.x) == len(line.y) > 10 for line in found.lines)
    if span is None:
        assert found.begin is None
    else:
        assert (found.begin, found.end) == pytest.approx(span, abs=0.11)
        first, last = found.window()
        assert first <= found.begin <= last  # type: ignore[operator]
    assert found.camera == "front"


def test_a_flipped_axis_is_shown_beside_its_own_joint() -> None:
    found = moment("axis_flip: action axis 1 turned round", ordinary())
    assert found is not None and [line.name for line in found.lines] == ["action 1", "motion of state lift"]


def test_a_camera_that_is_named_is_the_one_that_is_shown() -> None:
    for reason, camera in (("black: of the wrist frames", "wrist"), ("black: of the wrist_left frames", "front")):
        found = moment(reason, ordinary())
        assert found is not None and found.camera == camera


def test_a_long_recording_is_shown_around_its_moment() -> None:
    made = ordinary(20_000)
    samples = made.streams["state"]
    samples.values[10_000, 0] = 9.0
    found = moment("jump: state axis 0 moves", made)
    assert found is not None and found.window() == pytest.approx((994.9, 1005.1), abs=0.2)
    drawn = plot(replace(found, begin=None, end=None))
    assert len(drawn) < 60_000  # thinned, and the spike still there
    assert ">9<" in drawn


arrays = st.integers(0, 12).flatmap(
    lambda count: st.tuples(
        st.just(count), st.lists(st.lists(st.sampled_from([0.0, 1.0, -1.0, 5.5, float("nan"), 1e30]), min_size=3, max_size=3), min_size=count, max_size=count)
    )
)


@settings(max_examples=60, deadline=None)
@given(arrays, st.sampled_from([*FINDERS, "unknown"]), st.sampled_from(["", " state axis 2 jumps", " action axis 7", " camera:front", " front"]))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_recording_breaks_a_finder_or_a_plot(drawn: tuple[int, list[list[float]]], check: str, evidence: str) -> None:
    count, values = drawn
    made = ordinary()
    table = np.array(values).reshape(count, 3)
    t_s = np.arange(count) / 10.0
    column = table[:, 0] if count else np.zeros(0)
    streams = {"state": Samples(t_s[::-1], t_s, table), "action": Samples(t_s, t_s, table[:, :2]), "camera:front": Samples(t_s, t_s, table[:, :0])}
    found = moment(f"{check}:{evidence}", replace(made, streams=streams, looks=lambda camera: Looks(t_s, column, column, column)))
    assert found is None or plot(found).startswith("<svg")


def row(**changes: Any) -> dict[str, Any]:
    base = {"episode_id": "a" * 32, "robot": "arm-1", "task": "t", "upload": "x.mcap", "verdict": "rejected", "duration_s": 3.0}
    return {**base, "reasons": ["idle: long", "note: slow"], "scores": {"x": 1.0}, "tags": {}, "machine_verdict": "rejected", "override": None, **changes}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_foreign_text_stays_text() -> None:
    evil = row(robot=EVIL, task=EVIL, upload=EVIL, reasons=[f"idle: {EVIL}", f"override: {EVIL}"], scores={EVIL: 1.0}, tags={EVIL: EVIL}, override=EVIL)
    shown = Moment(EVIL, EVIL, (Line(EVIL, np.arange(9.0), np.arange(9.0)),), 1.0, 2.0)
    text = page(EVIL, EVIL, [Entry(evil, {f"idle: {EVIL}": shown}, {f"idle: {EVIL}": 0.5}, note=EVIL)])
    tags = Tags(text)
    assert not [tag for tag, attributes in tags.found if "onerror" in attributes] and not tags.of("img") and len(tags.of("script")) == 1
    (article,) = tags.of("article")
    assert article["data-robot"] == EVIL and article["data-reasons"] == '["idle", "override"]'


def test_the_page_counts_and_offers_the_other_verdict() -> None:
    kept = row(episode_id="b" * 32, verdict="kept", reasons=["note: slow"])
    text = page("t", "a", [Entry(row(), {}, {}), Entry(kept, {}, {}), Entry(row(episode_id="c" * 32, machine_verdict="kept"), {}, {})])
    assert checks(row()) == ["idle"] and '<option value="idle">idle (2)</option>' in text and '<option value="rejected">rejected (2)</option>' in text
    assert f"./flywheel override {'a' * 32} keep" in text and f"./flywheel override {'b' * 32} reject" in text
    assert text.count("(the machine: kept)") == 1
    assert "--reason &quot;…&quot; --data here</code>" in page("t", "a", [Entry(row(), {}, {})], " --data here")


def publish(store: Store, asset: str, **more: object) -> None:
    made = Pointer.model_validate({"asset": asset, "day": DAY, "generation": "g1", "run_id": "r", **more})
    store.put(pointer(asset, DAY, "g1"), made.model_dump_json().encode())


@pytest.fixture
def judged(store: Store) -> Store:
    """A day of a still arm, a dark clip, a broken clip, two good episodes, and a file that nobody could read."""
    good = make(0)
    made = {
        "1" * 32: good,
        "2" * 32: make(1).but(states=np.repeat(good.states[:1], 60, axis=0)),
        "3" * 32: make(2).but(frames=np.concatenate([make(2).frames[:30], np.zeros((30, 64, 64, 3), np.uint8)])),
        "4" * 32: make(3),
        "5" * 32: make(4),
    }
    for name, episode in made.items():
        save(store, episode, name)
    store.put(clip_key("4" * 32, "front"), b"no video")
    key = table(store, DAY, made)
    plan = Plan.of(MeasureSettings())
    for name in made:
        for measured in measure_here(store, name, plan):
            ledger.append(store, measured["stage"], measured["version"], DAY, [measured])
    decided = decide(store, DAY, key, plan.versions, Thresholds.load())
    lost = row(episode_id="6" * 32, verdict="quarantined", machine_verdict="quarantined", reasons=["unreadable: zero bytes"])
    store.put("verdicts/v.parquet", to_bytes([*decided.rows, lost], VERDICTS))
    publish(store, "measurements", output={"stages": plan.versions})
    publish(store, "verdicts", output={"verdicts": "verdicts/v.parquet"}, counts=decided.counts)
    return store


def test_a_day_becomes_a_folder_that_is_whole(judged: Store, tmp_path: Path) -> None:
    index = build(judged, DAY, tmp_path)
    tags = Tags(index.read_text())
    articles = {each["id"]: each for each in tags.of("article")}
    assert set(articles) == {str(number) * 32 for number in range(1, 7)}
    linked = [each["src"] for each in (*tags.of("video"), *tags.of("img"))]
    assert len(linked) >= 9 and all(link and not link.startswith(("/", "http", "file")) and (index.parent / link).is_file() for link in linked)
    text = index.read_text()
    assert '"black"' in str(articles["3" * 32]["data-reasons"])
    assert "default-src 'none'" in text
    dark = text.split(f'id="{"3" * 32}"')[1].split("</article>")[0]
    assert "class=moment" in dark and "data-share" in dark
    assert "nothing of it could be extracted" in text.split(f'id="{"6" * 32}"')[1].split("</article>")[0]
    assert read(judged, "1" * 32).length_s == pytest.approx(5.9, abs=0.01)
    assert build(judged, DAY, tmp_path).read_text() == text  # again, in its own place


def test_what_is_not_judged_or_no_day_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="is no day"):
        build(store, "../../etc", tmp_path)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    current.cache_clear()
    assert main(["review", DAY]) == 1
    assert "is not judged" in capsys.readouterr().err
    current.cache_clear()
