"""Videos beside a recording that has none: run.mp4 or run/front.mkv beside run.bag. How their times were found is noted."""

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np

from ray_jobs.episode import Episode, Stream
from ray_jobs.ingest.clips import MEDIA_ERRORS, STORE_ERRNOS, cut
from ray_jobs.ingest.gather import VIDEO, VIDEO_TIMES, times_stem
from ray_jobs.ingest.reader import Reader, Recorded, Refused, Upload, content_id, frame_notes, nominal_rate
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import Entry, Store

DAY_NS = 86_400 * 1_000_000_000
# A time since 1970 tells its own unit: from this many of it on, it is after 1973.
EPOCH_UNITS = ((1e17, 1), (1e14, 1_000), (1e11, 1_000_000), (1e8, 1_000_000_000))
# A time since the start of a video tells it by its steps: a frame lasts 1 ms to 10 s.
STEP_UNITS = ((1e7, 1), (1e4, 1_000), (10.0, 1_000_000), (0.0, 1_000_000_000))
TIME_COLUMN = re.compile(r"(time|stamp|^t$|_ns$|_ms$|_us$|^pts$|^sec)")


def read_with_videos(reader: Reader, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
    """The reader's episodes, and in those without a camera what the videos beside the recording show of their time.

    A recording without a wall clock takes them where it is one episode alone: else it is not known whose they are.
    """
    items = iter(reader.read(store, upload, settings))
    videos = [entry for entry in upload.files if VIDEO.search(entry.key)]
    if not videos or reader.folder_marker is not None:  # a set's videos are its own
        yield from items
        return
    start_ns = reader.peek(store, upload).start_ns
    for item in items:
        if not isinstance(item, Recorded) or item.clips:
            yield item
        elif not item.episode.meta.synthetic_clock:
            yield from _attached(item, item.start_ns if start_ns is None else start_ns, store, upload, videos, settings)
        else:
            after = next(items, None)
            yield from [item, after] if after is not None else _attached(item, 0, store, upload, videos, settings)


def _attached(item: Recorded, begins_ns: int, store: Store, upload: Upload, videos: list[Entry], settings: IngestSettings) -> Iterator[Recorded]:
    meta, streams = item.episode.meta, dict(item.episode.streams)
    notes, cameras, paths, media = [], {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder, ExitStack() as stack:
        for entry in videos:
            camera = _camera(entry, upload)
            target = Path(folder) / f"{camera}.mp4"
            try:
                found = _cut(stack.enter_context(store.local_copy(entry.key)), entry, target, item, begins_ns, store, upload, settings.limits)
            except (DataError, *MEDIA_ERRORS) as error:
                if getattr(error, "errno", None) in STORE_ERRNOS:
                    raise StoreError(f"cannot read {entry.key}, or write its clip to a temporary folder: {error}") from error
                notes.append(f"the video {PurePosixPath(entry.key).name} beside it was not read: {error}")
                continue
            if found is None:
                notes.append(f"the video {PurePosixPath(entry.key).name} beside it shows nothing of its time")
                continue
            cameras[camera], times, media[f"camera:{camera}"], note = found
            streams[f"camera:{camera}"] = Stream(times, times, np.zeros((len(times), 0), np.float32))
            paths[camera] = target
            notes.append(note)
        rates = [nominal_rate(streams[name].t_ns) for name in sorted(media)]
        changed = meta.model_copy(
            update={
                "episode_id": content_id(streams, media) if media else meta.episode_id,
                "cameras": cameras,
                "fps": next((rate for rate in rates if rate > 0), meta.fps),
                "notes": (*meta.notes, *notes, *frame_notes({name: streams[name] for name in ("state", *sorted(media)) if name in streams})),
            }
        )
        yield Recorded(Episode(changed, streams), paths, item.start_ns, item.end_ns)


def _camera(entry: Entry, upload: Upload) -> str:
    """What the video's name has beyond the recording's: front of run_front.mp4 and of run/front.mp4."""
    stem, own = VIDEO.sub("", entry.key), re.sub(r"\.(bag|db3|mcap|hdf5|h5)$", "", upload.path)
    rest = stem.removeprefix(own).strip("_.-/") if stem.startswith(own) else PurePosixPath(stem).name
    return re.sub(r"[^A-Za-z0-9_-]", "_", rest) or "camera"


def _cut(path: Path, entry: Entry, target: Path, item: Recorded, begins_ns: int, store: Store, upload: Upload, limits: Limits) -> Any:
    """(Clip, [frames] ns, digest, note) of the frames within the episode; None without any. Raises DataError or one of MEDIA_ERRORS."""
    pts_s = _frame_times(path)
    if not len(pts_s):
        return None
    name = PurePosixPath(entry.key).name
    clockless = item.episode.meta.synthetic_clock
    start_ns, end_ns = (0, item.end_ns - item.start_ns) if clockless else (item.start_ns, item.end_ns)
    beside = next((other for other in upload.files if VIDEO_TIMES.search(other.key) and times_stem(other.key) == VIDEO.sub("", entry.key)), None)
    if beside is not None:
        raw = _numbers(store, beside, limits)
        if len(raw) != len(pts_s):
            name += f" ({len(raw)} times for {len(pts_s)} frames)"
        pts_s = pts_s[: len(raw)]
        times, how = _absolute(raw[: len(pts_s)], begins_ns), f"times from {PurePosixPath(beside.key).name}"
    else:
        times = begins_ns + np.round((pts_s - pts_s[0]) * 1e9).astype(np.int64)
        how = "times from its own frames, as if it began with the recording"
    if (np.diff(times) < 0).any():
        raise DataError(f"its times in {how.removeprefix('times from ')} run backwards")
    step = int(np.median(np.diff(times))) if len(times) > 1 else 0
    rows = np.flatnonzero((times >= start_ns - step) & (times <= end_ns + step))
    if not len(rows):
        return None
    first, last = int(rows[0]), int(rows[-1]) + 1
    made = cut(path, target, limits, float(pts_s[first]), float(pts_s[last]) if last < len(pts_s) else None)
    if made is None:
        return None
    kept = times[first:last][: made.clip.frames]
    if len(kept) != made.clip.frames:
        raise DataError(f"{made.clip.frames} frames could be cut out where {len(kept)} have times")
    return made.clip, kept, made.digest, f"camera from the video beside it, {name}: {how}"


def _frame_times(path: Path) -> np.ndarray:
    """[frames] s, presentation times in their order."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError("it has no video stream")
        video = container.streams.video[0]
        pts = sorted(packet.pts for packet in container.demux(video) if packet.pts is not None)
        return np.array(pts, np.float64) * float(video.time_base or 0)


def _numbers(store: Store, entry: Entry, limits: Limits) -> np.ndarray:
    """[n] f64 of a list of times: JSON, or a table with a column of times, or one number a line. Raises DataError."""
    if entry.size > limits.document_mb << 20:
        raise DataError(f"{entry.key} has {entry.size} bytes, more than limits.document_mb ({limits.document_mb})")
    text = store.get(entry.key).decode("utf-8", "replace")
    try:
        if entry.key.endswith(".json"):
            found = json.loads(text)
            if isinstance(found, dict):
                found = next((value for name, value in found.items() if isinstance(value, list) and TIME_COLUMN.search(name.lower())), None)
            values = np.array(found, np.float64)
        else:
            values = _column(text)
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(f"{PurePosixPath(entry.key).name} holds no list of times: {error}") from error
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise DataError(f"{PurePosixPath(entry.key).name} holds no list of times")
    return values


def _column(text: str) -> np.ndarray:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    delimiter = next((mark for mark in ",;\t " if lines and mark in lines[0].strip()), ",")
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True))
    head = [name.strip().lower() for name in rows[0]] if rows else []
    named = any(re.search("[a-df-z]", name) for name in head)  # an e may be an exponent's
    place = next((at for at, name in enumerate(head) if TIME_COLUMN.search(name)), len(head) - 1 if len(head) == 2 else 0) if named else len(head) - 1
    return np.array([float(row[place]) for row in rows[1 if named else 0 :]], np.float64)


def _absolute(raw: np.ndarray, start_ns: int) -> np.ndarray:
    """[n] ns on the recording's clock: since 1970 where they can be, else from the recording's start. Raises DataError."""
    if np.abs(raw).max() > 4e18:
        raise DataError("its times are not those of a recording")
    for least, unit in EPOCH_UNITS:
        if raw[0] >= least:
            times = np.round(raw * unit).astype(np.int64) if unit > 1 else raw.astype(np.int64)
            if abs(int(times[0]) - start_ns) < DAY_NS and start_ns > 0:
                return times
            break
    step = float(np.median(np.diff(raw))) if len(raw) > 1 else 0.0
    unit = next(unit for least, unit in STEP_UNITS if step >= least) if step >= 0 else 1_000_000_000
    offset = np.round((raw - (raw[0] if raw[0] * unit > DAY_NS else 0.0)) * unit)
    if np.abs(offset).max() > 31 * DAY_NS:
        raise DataError("its times are not those of a recording")
    return start_ns + offset.astype(np.int64)
