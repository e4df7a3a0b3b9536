"""Where a recording becomes several episodes, and where it must not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.ingest.reader import Refused
from ray_jobs.seam.configs import Cuts, IngestSettings, Limits
from ray_jobs.seam.store import Store
from tests.ingest.recorded import NOON, SECOND, Said, Taken, episode, joints, mcap, packets, video, write

Take = Callable[..., list[Taken | Refused]]
STILL = IngestSettings(cuts=Cuts(long_s=20, still_s=3))


def session(moving: list[tuple[float, float]], seconds: float, hz: int = 10, noise: float = 0.0) -> list[Said]:
    """Joint states in which the first joint turns during `moving` and rests otherwise."""
    draw, said, angle = np.random.default_rng(0), [], 0.0
    for n in range(int(seconds * hz)):
        if any(start <= n / hz < end for start, end in moving):
            angle += 0.05
        said.append(joints("/joint_states", NOON + n * SECOND // hz, [angle + float(draw.normal()) * noise, 1.0], ("a", "b")))
    return said


def spans(found: list[Taken | Refused]) -> list[tuple[float, float]]:
    times = [item.streams["state"].t_ns for item in found if isinstance(item, Taken)]
    assert len(times) == len(found)
    return [(float(t[0] - NOON) / SECOND, float(t[-1] - NOON) / SECOND) for t in times]


def test_an_ordinary_episode_is_never_cut(raw: Store, tmp_path: Path, take: Take) -> None:
    """A teleoperator who thinks for a minute, a recorder that hangs for half a minute."""
    said = [m for m in session([(0, 20), (80, 120)], 150) if not 30 < (m.log_ns - NOON) / SECOND < 60]
    write(tmp_path / "raw/a.mcap", mcap(said))
    assert spans(take(raw, "a.mcap")) == [(0, 149.9)]


def test_a_pause_of_the_recorder_cuts_and_says_so(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [m for m in session([(0, 300)], 300) if not 100 < (m.log_ns - NOON) / SECOND < 200]
    write(tmp_path / "raw/a.mcap", mcap(said))
    found = take(raw, "a.mcap")
    assert spans(found) == [(0, 99.9), (200, 299.9)]
    for item in found:
        assert isinstance(item, Taken) and any(note.startswith("cut by a gap: no message for 100.1 s") for note in item.meta.notes)


def test_a_clock_that_was_set_is_no_pause(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON * (n >= 10) + n * SECOND // 10, [n]) for n in range(20)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    (item,) = take(raw, "a.mcap")
    assert isinstance(item, Taken) and len(item.streams["state"].t_ns) == 20


@pytest.mark.parametrize("noise", [0.0, 0.0002])
def test_a_long_recording_is_cut_where_nothing_moves(raw: Store, tmp_path: Path, take: Take, noise: float) -> None:
    write(tmp_path / "raw/a.mcap", mcap(session([(0, 8), (20, 30)], 40, noise=noise)))
    found = take(raw, "a.mcap", STILL)
    (first, second) = spans(found)
    assert first[0] == 0 and 8 <= first[1] <= 11.5 and 19.8 <= second[0] <= 20.2 and 30 <= second[1] <= 33.5
    assert next(note[:26] for item in found if isinstance(item, Taken) for note in item.meta.notes if "cut" in note) == "cut by stillness: nothing "


def test_the_episode_after_a_stillness_begins_with_a_frame_that_decodes(raw: Store, tmp_path: Path, take: Take) -> None:
    said = session([(0, 8), (20, 30)], 30)
    said += [video("/camera/front", NOON + n * SECOND // 10, data) for n, data in enumerate(packets(300, gop=8))]
    write(tmp_path / "raw/a.mcap", mcap(sorted(said, key=lambda m: m.log_ns)))
    _, second = take(raw, "a.mcap", STILL)
    assert isinstance(second, Taken)
    clip = second.meta.cameras["front"]
    assert len(second.pictures["front"]) == clip.frames + clip.lead_in and abs(clip.frames - len(second.streams["state"].t_ns)) <= 1


def test_markers_outrank_both(raw: Store, tmp_path: Path, take: Take) -> None:
    said = episode(NOON, 20) + episode(NOON + 600 * SECOND, 20)
    said[30:] = [type(m)(m.topic, m.type, m.log_ns + (100 * SECOND if m.log_ns < NOON + 300 * SECOND else 0), m.fields, m.stamp_ns) for m in said[30:]]
    write(tmp_path / "raw/a.mcap", mcap(said))
    assert len(take(raw, "a.mcap", STILL)) == 2


def test_numbers_beyond_the_limit_begin_a_new_part(raw: Store, tmp_path: Path, take: Take) -> None:
    said = [joints("/joint_states", NOON + n * SECOND // 100, [n] * 200, tuple(map(str, range(200)))) for n in range(2000)]
    write(tmp_path / "raw/a.mcap", mcap(said))
    found = take(raw, "a.mcap", IngestSettings(limits=Limits(episode_mb=1)))
    counts = [len(item.streams["state"].t_ns) for item in found if isinstance(item, Taken)]
    assert len(counts) == 2 and sum(counts) == 2000
    assert all("limits.episode_mb (1)" in " ".join(item.meta.notes) for item in found if isinstance(item, Taken))
