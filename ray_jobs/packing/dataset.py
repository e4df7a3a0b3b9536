"""Writes one LeRobot v3.0 dataset, episode by episode, in constant memory. The same episodes give the same bytes."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.packing import stats
from ray_jobs.packing.augment import source_of
from ray_jobs.packing.features import (
    ACTION,
    CHUNKS_SIZE,
    COUNTERS,
    DATA_FILE_MB,
    DATA_PATH,
    EPISODES_PATH,
    PROVENANCE_PATH,
    STATE,
    SYNTHETIC,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    Shape,
    info,
    video_key,
)
from ray_jobs.packing.prepare import Prepared
from ray_jobs.packing.video import Parameters, Segment, VideoFile
from ray_jobs.seam.model import canonical

OPEN_FILES = 16
MB = 1024 * 1024
PROVENANCE = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("episode_id", pa.string()),
        ("robot", pa.string()),
        ("upload", pa.string()),
        ("day", pa.string()),
        ("start_ns", pa.int64()),
        ("alignment", pa.string()),  # how the streams were put on one grid
        ("notes", pa.list_(pa.string())),
        ("synthetic", pa.bool_()),  # made up from `source_episode_id` by `recipe`, a document of augment.Recipe
        ("source_episode_id", pa.string()),
        ("recipe", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),  # of its verdict, sorted by name
        ("scores", pa.map_(pa.string(), pa.float64())),  # the same, the finite ones, to six digits: more would differ between processors
    ]
)


class DataFiles:
    """data/…: one row group per episode; a new file where the next episode would pass the limit."""

    def __init__(self, root: Path, limit: int):
        self.root, self.limit, self.index = root, limit, -1
        self._sink: BinaryIO | None = None
        self._writer: Any = None

    def append(self, table: pa.Table) -> int:
        """Returns the index of the file that holds the episode."""
        if self._sink is None or self._sink.tell() + table.nbytes > self.limit:
            self.close()
            self.index += 1
            path = self.root / DATA_PATH.format(chunk_index=self.index // CHUNKS_SIZE, file_index=self.index % CHUNKS_SIZE)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = path.open("wb")
            self._writer = pq.ParquetWriter(self._sink, table.schema, compression="snappy")
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        return self.index

    def close(self) -> None:
        if self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._sink = None


class VideoFiles:
    """videos/<key>/…: one growing file per set of codec parameters, at most OPEN_FILES at once."""

    def __init__(self, root: Path, key: str, fps: int, limit: int):
        self.root, self.key, self.fps, self.limit = root, key, fps, limit
        self.times: list[np.ndarray | None] = []
        self.first: Parameters | None = None
        self._open: dict[Parameters, tuple[int, VideoFile]] = {}

    def append(self, segment: Segment) -> tuple[int, int]:
        """Returns (file index, number of the segment's first frame in it)."""
        index, file = self._open.get(segment.parameters, (-1, None))
        if file is not None and file.size + segment.size > self.limit:
            self._finish(segment.parameters)
            file = None
        if file is None:
            while len(self._open) >= OPEN_FILES:
                self._finish(next(iter(self._open)))
            index = len(self.times)
            path = VIDEO_PATH.format(video_key=self.key, chunk_index=index // CHUNKS_SIZE, file_index=index % CHUNKS_SIZE)
            file = VideoFile(self.root / path, segment, self.fps)
            self.times.append(None)
            self._open[segment.parameters] = (index, file)
            self.first = self.first or segment.parameters
        return index, file.append(segment)

    def _finish(self, parameters: Parameters) -> None:
        index, file = self._open.pop(parameters)
        self.times[index] = file.close()

    def close(self) -> None:
        for parameters in list(self._open):
            self._finish(parameters)

    def span(self, index: int, start: int, count: int) -> tuple[float, float]:
        """(from, to) in seconds, from the file's real presentation times. After close."""
        times = self.times[index]
        assert times is not None
        return float(times[start]), float(times[start + count - 1] + 1 / self.fps)


class DatasetWriter:
    """One LeRobot dataset under `root`: append the prepared episodes in order, then finish."""

    def __init__(self, root: Path, shape: Shape, data_limit: int = DATA_FILE_MB * MB, video_limit: int = VIDEO_FILE_MB * MB):
        self.root, self.shape, self.frames = root, shape, 0
        self.tasks: dict[str, int] = {}
        self.robots: Counter[str] = Counter()
        self._data = DataFiles(root, data_limit)
        self._videos = {key: VideoFiles(root, key, shape.fps, video_limit) for key, _, _ in shape.cameras}
        self._rows: list[dict[str, Any]] = []
        self._spans: list[dict[str, tuple[int, int]]] = []
        self._stats: list[dict[str, stats.Stats]] = []
        self._provenance: list[dict[str, Any]] = []

    @property
    def episodes(self) -> int:
        return len(self._rows)

    def append(self, episode: Prepared) -> int:
        """Returns the episode's index in this dataset."""
        count, index = len(episode.state), len(self._rows)
        task = self.tasks.setdefault(episode.task, len(self.tasks))
        columns: dict[str, np.ndarray] = {}
        for key, values in ((STATE, episode.state), (ACTION, episode.action)):
            if values.shape[1]:
                columns[key] = values
        steps = np.arange(count)
        columns["timestamp"] = (steps / self.shape.fps).astype(np.float32)
        for key, numbers in zip(COUNTERS, (steps, np.full(count, index), self.frames + steps, np.full(count, task)), strict=True):
            columns[key] = numbers.astype(np.int64)
        recipe = episode.row.get("recipe")
        if self.shape.augmented:
            columns[SYNTHETIC] = np.full(count, recipe is not None)
        file = self._data.append(pa.table({key: _column(values) for key, values in columns.items()}))
        measured = {key: stats.of_values(values) for key, values in columns.items()}
        spans = {}
        for name, camera in episode.cameras.items():
            spans[video_key(name)] = self._videos[video_key(name)].append(camera.segment)
            measured[video_key(name)] = camera.stats
        row: dict[str, Any] = {"episode_index": index, "tasks": [episode.task], "length": count}
        row |= {"data/chunk_index": file // CHUNKS_SIZE, "data/file_index": file % CHUNKS_SIZE}
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + count}
        made: dict[str, Any] = {"synthetic": recipe is not None, "source_episode_id": source_of(episode.row)}
        if self.shape.augmented:
            row |= made
        self._rows.append(row)
        self._spans.append(spans)
        self._stats.append(measured)
        made["recipe"] = canonical(recipe) if recipe else None
        source = {key: episode.row[key] for key in ("episode_id", "robot", "upload", "day", "start_ns")}
        told = {"tags": sorted((episode.row.get("tags") or {}).items()), "scores": _rounded(episode.row.get("scores") or {})}
        self._provenance.append({"episode_index": index, "alignment": episode.method, "notes": list(episode.notes), **made, **told, **source})
        self.robots[episode.row["robot"]] += 1
        self.frames += count
        return index

    def finish(self) -> None:
        """Close the files and write meta/."""
        self._data.close()
        for files in self._videos.values():
            files.close()
        for row, spans, measured in zip(self._rows, self._spans, self._stats, strict=True):
            for key, (file, start) in sorted(spans.items()):
                begin, end = self._videos[key].span(file, start, row["length"])
                row |= {f"videos/{key}/chunk_index": file // CHUNKS_SIZE, f"videos/{key}/file_index": file % CHUNKS_SIZE}
                row |= {f"videos/{key}/from_timestamp": begin, f"videos/{key}/to_timestamp": end}
            for key, values in measured.items():
                row |= {f"stats/{key}/{name}": value for name, value in stats.as_json(values).items()}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        meta = self.root / "meta"
        (self.root / EPISODES_PATH).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows), self.root / EPISODES_PATH, compression="snappy")
        pq.write_table(pa.Table.from_pylist(self._provenance, schema=PROVENANCE), self.root / PROVENANCE_PATH, compression="snappy")
        pd.DataFrame({"task_index": list(self.tasks.values())}, index=list(self.tasks)).to_parquet(meta / "tasks.parquet")
        merged = {key: stats.as_json(stats.merge([measured[key] for measured in self._stats])) for key in self._stats[0]}
        (meta / "stats.json").write_text(json.dumps(merged, indent=4))
        codecs = {key: files.first.codec for key, files in self._videos.items() if files.first}
        robot = next(iter(self.robots)) if len(self.robots) == 1 else "mixed"
        facts = info(self.shape, codecs, robot, self.episodes, self.frames, len(self.tasks))
        (meta / "info.json").write_text(json.dumps(facts, indent=4))


def _rounded(scores: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, float(f"{value:.6g}")) for name, value in sorted(scores.items()) if math.isfinite(value)]


def _column(values: np.ndarray) -> pa.Array:
    """A scalar column, as LeRobot wants it for shape [1], or a fixed-size list."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
