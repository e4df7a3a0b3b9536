"""Properties: a packed time shows the right frame whatever was dropped, repeated or cut; statistics are NumPy's own."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.packing import stats
from ray_jobs.packing.video import Segment as Part
from ray_jobs.packing.video import VideoFile, can_keep, decoded, decoded_from, scan, transcode
from tests.oracle.board import number_in, picture
from tests.packing.made import write_clip


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, str, str, int, np.ndarray]:
    """(frames in the clip, keyframe distance, B-frames, lead-in, wanted rows: not decreasing, with gaps and repeats or plain)."""
    count = draw(st.integers(2, 24))
    lead_in = draw(st.sampled_from([0, 0, 1, 3]))
    if draw(st.booleans()):
        first = draw(st.integers(0, count - 1))
        wanted = np.arange(first, draw(st.integers(first + 1, count)))
    else:
        wanted = np.sort(np.array(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=30))))
    return count, draw(st.sampled_from(["1", "2", "5", "50"])), draw(st.sampled_from(["0", "0", "2"])), lead_in, wanted


@settings(max_examples=25, deadline=None)
@given(st.lists(clips(), min_size=1, max_size=3), st.sampled_from([7, 10, 30]))
def test_a_packed_time_shows_its_frame(made: list[tuple[int, str, str, int, np.ndarray]], fps: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[object, VideoFile] = {}
        placed = []
        for index, (count, distance, between, lead_in, wanted) in enumerate(made):
            clip = folder / f"{index}.mp4"
            write_clip(clip, [4000] * lead_in + list(range(count)), fps, 48, g=distance, bf=between)
            seen = scan(clip)
            if can_keep(seen, lead_in, wanted):
                assert lead_in == 0 and len(set(wanted.tolist())) == len(wanted)
                part = Part(clip, int(wanted[0]), len(wanted), seen.parameters, seen.size, False)
            else:
                part = transcode(clip, lead_in, wanted, fps, folder / f"{index}-made.mp4")
            if part.parameters not in files:
                files[part.parameters] = VideoFile(folder / f"packed-{len(files)}.mp4", part, fps)
            placed.append((files[part.parameters], files[part.parameters].append(part), wanted))
        times = {id(file): file.close() for file in files.values()}
        for file, start, wanted in placed:
            seconds = times[id(file)]
            np.testing.assert_allclose(seconds, np.arange(len(seconds)) / fps, atol=1e-4)
            shown = [number_in(frame.to_ndarray(format="rgb24")) for frame in decoded_from(file.path, float(seconds[start]), len(wanted))]
            assert shown == wanted.tolist()


def test_a_lone_segment_decodes_without_what_lies_before(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", list(range(30)), g="10")
    assert [number_in(frame.to_ndarray(format="rgb24")) for frame in decoded(tmp_path / "clip.mp4", 10, 15)] == list(range(10, 25))


def test_the_board_reads_back() -> None:
    for number in (0, 1, 5, 1023, 4000, 4095):
        assert number_in(picture(number)) == number


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4))
def test_statistics_are_numpys(seed: int, count: int, pictures: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, 3)).astype(np.float32)
    made = stats.of_values(values)
    np.testing.assert_allclose(made["q10"], np.quantile(values.astype(np.float64), 0.1, axis=0))
    seen, frames = stats.PictureStats(), draw.integers(0, 256, (pictures, 9, 7, 3)).astype(np.uint8)
    for frame in frames:
        seen.add(frame)
    flat, got = frames.reshape(-1, 3) / 255.0, seen.result()
    for name, expected in {"min": flat.min(0), "max": flat.max(0), "mean": flat.mean(0), "std": flat.std(0)}.items():
        np.testing.assert_allclose(got[name].ravel(), expected, atol=1e-12)
    for name, share in stats.QUANTILES.items():
        np.testing.assert_allclose(got[name].ravel(), np.quantile(flat, share, axis=0), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_merged_statistics_are_those_of_the_whole(seed: int, counts: list[int]) -> None:
    draw = np.random.default_rng(seed)
    parts = [draw.normal(loc=draw.normal(), size=(count, 2)) for count in counts]
    merged, whole = stats.merge([stats.of_values(part) for part in parts]), stats.of_values(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name], atol=1e-12)


def test_long_episodes_are_sampled() -> None:
    assert len(stats.sampled_frames(50)) == 50 and len(stats.sampled_frames(5000)) == 594
    assert stats.sampled_frames(5000)[0] == 0 and stats.sampled_frames(5000)[-1] == 4999
