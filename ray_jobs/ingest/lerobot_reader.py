"""LeRobot datasets v2.0, v2.1 and v3.0: one upload is the folder that holds meta/info.json.

Their timestamps restart at 0 in each episode, so the clock is synthetic and the day is the upload's.
"""

import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream
from ray_jobs.ingest.clips import MEDIA_ERRORS, STORE_ERRNOS, DepthClip, ImageClip, cut
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts, content_id
from ray_jobs.ingest.values import BROKEN_IMAGE, millimetres, picture
from ray_jobs.seam.configs import IngestSettings, Limits
from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import Store

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
IMAGES = "observation.images."
# What a damaged table, document or template raises. Arrow's decompressors also raise OSErrors without an errno.
CONTENT_ERRORS = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError, pa.ArrowException)
# A path template holds these fields and nothing else: str.format would look into objects and pad to any width.
FIELD = re.compile(r"\{(episode_chunk|episode_index|chunk_index|file_index|video_key)(:0?\d{1,2}d)?\}")
BATCH_ROWS = 8192
LONGEST_S = 31 * 86_400.0


class LeRobotReader:
    name = "lerobot"
    folder_marker: str | None = INFO

    def recognises(self, upload: Upload, head: bytes) -> bool:
        return any(entry.key == upload.key(INFO) for entry in upload.files)

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        try:
            info = _info(store, upload, Limits())
        except DataError as error:
            return UploadFacts(reason=str(error))
        return UploadFacts(robot=str(info.get("robot_type") or "unknown"))

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        try:
            dataset = _Dataset(store, upload, settings.limits)
        except DataError as error:
            yield Refused(str(error))
            return
        if not dataset.episodes:
            yield Refused("the set lists no episodes")
        with dataset:
            offset_ns = 0
            for row in dataset.episodes:
                part = f"episode {row.get('episode_index')}"
                with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
                    try:
                        recorded = dataset.episode(row, Path(folder), offset_ns)
                    except DataError as error:
                        yield Refused(str(error), part)
                        continue
                    offset_ns = recorded.end_ns
                    yield recorded


def _document(store: Store, upload: Upload, key: str, limits: Limits) -> bytes:
    """Raises DataError where it is larger than the limits allow."""
    size = next((entry.size for entry in upload.files if entry.key == key), 0)
    if size > limits.document_mb << 20:
        raise DataError(f"{key} has {size} bytes, more than limits.document_mb ({limits.document_mb})")
    return store.get(key)


def _info(store: Store, upload: Upload, limits: Limits) -> dict[str, Any]:
    try:
        info = json.loads(_document(store, upload, upload.key(INFO), limits))
    except (ValueError, RecursionError) as error:
        raise DataError(f"meta/info.json is not JSON: {error}") from error
    if not isinstance(info, dict) or not _are_features(info.get("features")):
        raise DataError("meta/info.json is not a LeRobot document: it has no features")
    if info.get("codebase_version") not in VERSIONS:
        raise DataError(f"LeRobot {info.get('codebase_version')} is not read, only {', '.join(VERSIONS)}; convert it with LeRobot's own scripts")
    return info


def _are_features(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(feature, dict) for feature in found.values())


class _Dataset:
    """One set, its documents read once and its shared files kept open from one episode to the next."""

    def __init__(self, store: Store, upload: Upload, limits: Limits):
        self.store, self.upload, self.limits = store, upload, limits
        self.info = _info(store, upload, limits)
        self.files = {entry.key for entry in upload.files}
        self.version = self.info["codebase_version"]
        try:
            self.fps = float(self.info["fps"])
            if not 0.001 <= self.fps <= 100_000:
                raise ValueError(f"fps is {self.fps}")
            self.episodes = self._episodes()
            self.tasks = self._tasks()
            self.videos = [name for name, feature in self.info["features"].items() if feature.get("dtype") == "video"]
            self.images = [name for name, feature in self.info["features"].items() if feature.get("dtype") == "image"]
            self.present = [name for name in self.videos if any(f"/{name}/" in key for key in self.files)]
            self.notes = self._quirks()
        except (*CONTENT_ERRORS, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise DataError(f"the set's meta folder is damaged: {type(error).__name__}: {error}") from error
        self._open: dict[str, tuple[str, Path, ExitStack]] = {}
        self._table: tuple[str, pa.Table | None] = ("", None)

    def __enter__(self) -> "_Dataset":
        return self

    def __exit__(self, *exc: object) -> None:
        for _, _, stack in self._open.values():
            stack.close()

    def _lines(self, name: str) -> list[dict[str, Any]]:
        if self.upload.key(name) not in self.files:
            return []
        return [json.loads(line) for line in _document(self.store, self.upload, self.upload.key(name), self.limits).splitlines() if line.strip()]

    def _tables(self, folder: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for key in sorted(key for key in self.files if key.startswith(self.upload.key(folder) + "/") and key.endswith(".parquet")):
            file = pq.ParquetFile(io.BytesIO(_document(self.store, self.upload, key, self.limits)))
            columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows += _bounded(file, key, columns, self.limits.document_mb, "document_mb").to_pylist()
        return rows

    def _episodes(self) -> list[dict[str, Any]]:
        rows = self._tables("meta/episodes") if self.version == "v3.0" else self._lines("meta/episodes.jsonl")
        return sorted(rows, key=lambda row: int(row["episode_index"]))

    def _tasks(self) -> dict[int, str]:
        if self.version != "v3.0":
            return {int(row["task_index"]): str(row["task"]) for row in self._lines("meta/tasks.jsonl")}
        key = self.upload.key("meta/tasks.parquet")
        if key not in self.files:
            return {}
        file = pq.ParquetFile(io.BytesIO(_document(self.store, self.upload, key, self.limits)))
        table = _bounded(file, key, file.schema_arrow.names, self.limits.document_mb, "document_mb")
        names = [name for name in table.column_names if name != "task_index"]
        return {int(row["task_index"]): str(row[names[0]]) for row in table.to_pylist()} if names else {}

    def _quirks(self) -> list[str]:
        """What the set says of itself and does not hold."""
        notes = [f"declared camera without files: {name.removeprefix(IMAGES)}" for name in self.videos if name not in self.present]
        found = {"total_episodes": len(self.episodes), "total_frames": sum(int(row["length"]) for row in self.episodes), "total_tasks": len(self.tasks)}
        if self.version != "v3.0":
            found["total_videos"] = sum(key.endswith(".mp4") for key in self.files)
        odd = [f"{name} says {self.info[name]}, found {count}" for name, count in found.items() if self.info.get(name, count) != count]
        for split, span in sorted((self.info.get("splits") or {}).items()):
            end = str(span).split(":")[-1]
            if end.isdigit() and int(end) > len(self.episodes):
                odd.append(f"split {split} is {span} of {len(self.episodes)} episodes")
        stats = "meta/episodes_stats.jsonl" if self.version == "v2.1" else "meta/stats.json"
        if self.upload.key(stats) not in self.files:
            notes.append(f"no stats: {stats} is missing")
        return notes + ([f"odd totals in meta/info.json: {'; '.join(odd)}"] if odd else [])

    def _path(self, template: str, row: dict[str, Any], prefix: str, video: str | None = None) -> str:
        number = int(row["episode_index"])
        chunk, file = row.get(f"{prefix}/chunk_index"), row.get(f"{prefix}/file_index")
        pattern = str(self.info[template])
        if "{" in FIELD.sub("", pattern) or "}" in FIELD.sub("", pattern):
            raise DataError(f"{template} of meta/info.json is no path template: {pattern[:200]}")
        return self.upload.key(
            pattern.format(
                episode_chunk=number // int(self.info.get("chunks_size") or 1000),
                episode_index=number,
                chunk_index=0 if chunk is None else int(chunk),
                file_index=0 if file is None else int(file),
                video_key=video,
            )
        )

    def _local(self, role: str, key: str) -> Path:
        """The file on this machine; the one opened before it for the same role is let go."""
        if role in self._open and self._open[role][0] == key:
            return self._open[role][1]
        if role in self._open:
            self._open.pop(role)[2].close()
        stack = ExitStack()
        path = stack.enter_context(self.store.local_copy(key))
        self._open[role] = (key, path, stack)
        return path

    def _rows(self, row: dict[str, Any]) -> pa.Table:
        key = self._path("data_path", row, "data")
        if key not in self.files:
            raise DataError(f"its data file is missing: {key}")
        if self._table[0] != key:
            file = pq.ParquetFile(self._local("data", key))
            wanted = {"observation.state", "action", "timestamp", "episode_index", "task_index", "next.success", *self.images}
            columns = [name for name in file.schema_arrow.names if name in wanted]
            self._table = (key, _bounded(file, key, columns, self.limits.episode_mb, "episode_mb"))
        table = self._table[1]
        assert table is not None
        return table.filter(pc.equal(table["episode_index"], int(row["episode_index"]))) if "episode_index" in table.column_names else table

    def episode(self, row: dict[str, Any], folder: Path, offset_ns: int) -> Recorded:
        """Raises DataError where this episode's own files are missing or damaged."""
        try:
            return self._read(row, folder, offset_ns)
        except (*CONTENT_ERRORS, *MEDIA_ERRORS, *BROKEN_IMAGE) as error:
            if getattr(error, "errno", None) in STORE_ERRNOS:
                raise StoreError(f"cannot read {self.upload.path}, or write its clips to a temporary folder: {error}") from error
            raise DataError(f"its files are damaged: {type(error).__name__}: {error}") from error

    def _read(self, row: dict[str, Any], folder: Path, offset_ns: int) -> Recorded:
        table = self._rows(row)
        count = table.num_rows
        if not count:
            raise DataError("its data file has no rows of this episode")
        notes = list(self.notes)
        if count != int(row["length"]):
            notes.append(f"length says {row['length']}, found {count} rows")
        t_s = _column(table, "timestamp")[:, 0] if "timestamp" in table.column_names else None
        if t_s is not None and np.isfinite(t_s).all() and np.abs(t_s).max() < LONGEST_S:
            t_ns = np.round(t_s * 1e9).astype(np.int64)
        else:
            t_ns = np.round(np.arange(count) * 1e9 / self.fps).astype(np.int64)
            notes.append(f"{'no' if t_s is None else 'absurd'} timestamps: rows taken at the set's rate")
        streams = {}
        for name, column in (("state", "observation.state"), ("action", "action")):
            if column in table.column_names:
                streams[name] = Stream(t_ns, t_ns, _column(table, column).astype(np.float32))
            else:
                notes.append(f"no {column}")
        clips, depths, paths, media = self._clips(row, table, t_ns, folder, streams, notes)
        if not streams:
            raise DataError("it has neither states nor a camera")
        task, success = self._task(row, table, notes), None
        if "next.success" in table.column_names:
            success = bool(_column(table, "next.success")[:, 0].any())
        meta = EpisodeMeta(
            episode_id=content_id(streams, media),
            robot=self.upload.robot,
            task=task,
            fps=self.fps,
            state_names=_names(self.info, "observation.state", streams.get("state")),
            action_names=_names(self.info, "action", streams.get("action")),
            cameras=clips,
            depth=depths,
            source=f"lerobot {self.version}",
            upload=self.upload.path,
            success=success,
            synthetic_clock=True,
            notes=tuple(notes),
        )
        length_ns = int(t_ns[-1] - t_ns[0]) + round(1e9 / self.fps)
        return Recorded(Episode(meta, streams), paths, offset_ns, offset_ns + length_ns)

    def _clips(
        self, row: dict[str, Any], table: pa.Table, t_ns: np.ndarray, folder: Path, streams: dict[str, Stream], notes: list[str]
    ) -> tuple[dict[str, Clip], dict[str, Clip], dict[str, Path], dict[str, bytes]]:
        clips: dict[str, Clip] = {}
        depths: dict[str, Clip] = {}
        paths: dict[str, Path] = {}
        media: dict[str, bytes] = {}
        for feature in self.present + self.images:
            camera = re.sub(r"[^\w.-]", "_", feature.removeprefix(IMAGES)).lstrip(".") or "camera"
            target = folder / f"{camera}.mp4"
            deep = _is_depth(self.info["features"][feature])
            if feature in self.images:
                if feature not in table.column_names:
                    notes.append(f"declared camera without images: {camera}")
                    continue
                encoder = DepthClip(target.with_suffix(".mkv")) if deep else ImageClip(target)
                target = encoder.path
                for at, cell in zip(t_ns.tolist(), table[feature].to_pylist(), strict=True):
                    image = picture(cell["bytes"], self.limits)
                    if isinstance(encoder, DepthClip):
                        encoder.add_depth(millimetres(np.asarray(image)), at, cell["bytes"])
                    else:
                        encoder.add(np.asarray(image.convert("RGB")), "rgb24", at, cell["bytes"])
                clip, times, digest = encoder.close(), t_ns, encoder.digest.digest()
            else:
                prefix = f"videos/{feature}"
                key = self._path("video_path", row, prefix, feature)
                if key not in self.files:
                    notes.append(f"its video file is missing: {camera}")
                    continue
                start, end = row.get(f"{prefix}/from_timestamp"), row.get(f"{prefix}/to_timestamp")
                found = cut(self._local(feature, key), target, self.limits, float(start or 0.0), None if end is None else float(end))
                if found is None:
                    notes.append(f"its video has no frames: {camera}")
                    continue
                clip, times, digest = found.clip, found.times_ns, found.digest
                notes += [f"{note} ({camera})" for note in found.notes]
            if clip.frames == len(t_ns) and not _irregular(times, self.fps):
                # By LeRobot's construction frame k belongs to row k, whatever time the rows begin at.
                if abs(int(t_ns[0] - times[0])) > 0.5e9 / self.fps:
                    notes.append(f"timestamps begin at {t_ns[0] / 1e9:.3f} s, the video of {camera} at 0: frames matched by position")
                times = t_ns
            elif clip.frames != len(t_ns):
                fewer = "fewer" if clip.frames < len(t_ns) else "more"
                notes.append(f"{fewer} frames than states: {clip.frames} of {len(t_ns)} ({camera})")
            name = f"{'depth' if deep else 'camera'}:{camera}"
            streams[name] = Stream(times, times, np.zeros((len(times), 0), np.float32))
            (depths if deep else clips)[camera] = clip
            paths[camera], media[name] = target, digest
        return clips, depths, paths, media

    def _task(self, row: dict[str, Any], table: pa.Table, notes: list[str]) -> str:
        """The task of most rows. What the vocabulary lists for the episode and no row has is no task, and is noted."""
        listed = [str(task) for task in row.get("tasks") or []]
        if "task_index" not in table.column_names:
            return listed[0] if listed else ""
        indices = _column(table, "task_index")[:, 0].astype(int)
        used = [self.tasks.get(int(index), "") for index in np.unique(indices)]
        notes += [f'task vocabulary: "{task}" is listed and no row has it' for task in listed if task not in used]
        values, counts = np.unique(indices, return_counts=True)
        task = self.tasks.get(int(values[np.argmax(counts)]), "")
        if len(used) > 1:
            notes.append(f"{len(used)} tasks in one episode, the longest was taken")
        if not task:
            notes.append("task_index names no task of the vocabulary")
        return task or (listed[0] if listed else "")


def _bounded(file: pq.ParquetFile, key: str, columns: Sequence[str], limit_mb: int, limit: str) -> pa.Table:
    """The columns. Raises DataError where they unpack to more than the limit: few bytes of a table may stand for many.

    What the file says of its columns is not asked: pyarrow 26 aborts the process where that is damaged.
    """
    batches, size = [], 0
    for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
        batches.append(batch)
        size += batch.nbytes
        if size > limit_mb << 20:
            raise DataError(f"{key} unpacks to more than limits.{limit} ({limit_mb})")
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else pa.schema([file.schema_arrow.field(name) for name in columns]))


def _is_depth(feature: dict[str, Any]) -> bool:
    """Whether a camera measures distance, as LeRobot says it: in the feature's info, with or without "video." before the name."""
    info = feature.get("info") or feature.get("video_info") or {}
    return isinstance(info, dict) and any(bool(info.get(name)) for name in ("video.is_depth_map", "is_depth_map"))


def _irregular(times_ns: np.ndarray, fps: float) -> bool:
    return len(times_ns) > 1 and bool(np.any(np.abs(np.diff(times_ns) * fps / 1e9 - 1) > 0.5))


def _column(table: pa.Table, name: str) -> np.ndarray:
    """[rows, width] f64 of a scalar or list column."""
    column = table[name].combine_chunks()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), -1)
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(len(column), 1)


def _names(info: dict[str, Any], feature: str, stream: Stream | None) -> tuple[str, ...]:
    """Names of the values: a flat list, a list in a list, or {"motors": [...]}, as the versions write them."""
    if stream is None:
        return ()
    found: list[str] = []

    def gather(names: Any) -> None:
        for name in names.values() if isinstance(names, dict) else names if isinstance(names, list) else ():
            if isinstance(name, str):
                found.append(name)
            else:
                gather(name)

    gather((info["features"].get(feature) or {}).get("names"))
    width = stream.values.shape[1]
    return tuple(found) if len(found) == width else tuple(f"{feature.split('.')[-1]}_{number}" for number in range(width))
