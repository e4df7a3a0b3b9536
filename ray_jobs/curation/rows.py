"""An episode's samples as a whole, without all of them in memory: what scores of hours are made of.

Numbers of a long recording lie in an unnamed temporary file, axis after axis, and a few axes or a stretch of rows are read at a time. A short one
stays as it is, all axes at once. So a formula is written once, over parts.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ray_jobs.episode import Stream

AT_ONCE = 1 << 20  # numbers; 8 MB as f64


class Table:
    """Numbers [n, d], given in memory or written part by part; what is read is f64."""

    def __init__(self, count: int, width: int, dtype: type = np.float32) -> None:
        self.shape = (count, width)
        self._kind = np.dtype(dtype)
        small = count * width <= AT_ONCE
        self._kept: np.ndarray | None = np.zeros((count, width), dtype) if small else None
        self._file = None if small else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it ends with the table

    @classmethod
    def of(cls, values: "np.ndarray | Table") -> "Table":
        if isinstance(values, Table):
            return values
        made = cls(0, 0)
        made.shape, made._kept = (values.shape[0], values.shape[1]), values
        return made

    @classmethod
    def made(cls, count: int, width: int, parts: Iterable[tuple[slice, np.ndarray]], dtype: type = np.float32) -> "Table":
        """From some axes [n, k] at a time."""
        table = cls(count, width, dtype)
        for axes, values in parts:
            table.write(axes, values)
        return table

    def write(self, axes: slice, values: np.ndarray) -> None:
        """Some axes whole, [n, k]."""
        self._write(0, axes, values)

    def put(self, first: int, values: np.ndarray) -> None:
        """Rows [m, d] from `first` on."""
        self._write(first, slice(0, self.shape[1]), values)

    def __len__(self) -> int:
        return self.shape[0]

    def parts(self, chosen: Sequence[int] | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(which of the chosen axes, f64 [n, k]): as many axes at a time as are worth AT_ONCE numbers, at least one."""
        wanted = range(self.shape[1]) if chosen is None else chosen
        step = max(1, AT_ONCE // max(len(self), 1))
        for first in range(0, len(wanted), step):
            places = slice(first, min(first + step, len(wanted)))
            yield places, self.axes(wanted[places])

    def stretches(self, width: int | None = None) -> Iterator[tuple[int, int]]:
        """[first, last) of rows that are worth AT_ONCE numbers, where a row makes `width` of them."""
        count, step = len(self), max(1, AT_ONCE // max(width or self.shape[1], 1))
        for first in range(0, count, step):
            yield first, min(first + step, count)

    def axes(self, chosen: Iterable[int]) -> np.ndarray:
        """f64 [n, k]."""
        wanted = list(chosen)
        if self._kept is not None:
            whole = wanted == list(range(self.shape[1]))
            return np.asarray(self._kept if whole else self._kept[:, wanted], np.float64)
        return np.stack([self._read(axis, 0, len(self)) for axis in wanted], axis=1) if wanted else np.zeros((len(self), 0))

    def axis(self, number: int) -> np.ndarray:
        """f64 [n]."""
        return self.axes([number])[:, 0]

    def rows(self, first: int, last: int) -> np.ndarray:
        """f64 [last - first, d]."""
        if self._kept is not None:
            return np.asarray(self._kept[first:last], np.float64)
        return np.stack([self._read(axis, first, last) for axis in range(self.shape[1])], axis=1)

    def take(self, chosen: np.ndarray) -> "Table":
        """The chosen rows, in that order."""
        if self._kept is not None:
            return Table.of(self._kept[chosen])
        return Table.made(len(chosen), self.shape[1], ((axes, values[chosen]) for axes, values in self.parts()), self._kind.type)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value of each axis [d]."""
        lows, highs = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        for axes, values in self.parts():
            lows[axes], highs[axes] = values.min(axis=0), values.max(axis=0)
        return lows, highs

    def _write(self, first: int, axes: slice, values: np.ndarray) -> None:
        if self._kept is not None:
            self._kept[first : first + len(values), axes] = values
            return
        assert self._file is not None
        for axis, column in zip(range(axes.start, axes.stop), values.T, strict=True):
            os.pwrite(self._file.fileno(), np.ascontiguousarray(column, self._kind).data, (axis * len(self) + first) * self._kind.itemsize)

    def _read(self, axis: int, first: int, last: int) -> np.ndarray:
        assert self._file is not None
        size = self._kind.itemsize
        data = os.pread(self._file.fileno(), (last - first) * size, (axis * len(self) + first) * size)
        return np.frombuffer(data, self._kind).astype(np.float64)


class Rows:
    """Every stream of an episode: when, and what."""

    def __init__(self, clocks: Mapping[str, tuple[np.ndarray, np.ndarray]], tables: Mapping[str, Table]) -> None:
        self.clocks = dict(clocks)  # stream -> (t_ns, log_ns), in recorded order
        self.tables = dict(tables)  # stream -> its values, likewise
        self._ordered: dict[str, tuple[np.ndarray, Table]] = {}

    @classmethod
    def of(cls, streams: Mapping[str, Stream]) -> "Rows":
        """Of streams that are in memory whole."""
        return cls({name: (each.t_ns, each.log_ns) for name, each in streams.items()}, {name: Table.of(each.values) for name, each in streams.items()})

    def ordered(self, name: str) -> tuple[np.ndarray, Table]:
        """(times ns [m], values [m, d]) of the finite samples by time, one per instant; empty where the stream is absent or has no axes."""
        if name not in self._ordered:
            self._ordered[name] = self._in_order(name)
        return self._ordered[name]

    def _in_order(self, name: str) -> tuple[np.ndarray, Table]:
        table = self.tables.get(name)
        if table is None or not table.shape[1]:
            return np.zeros(0, np.int64), Table(0, 0)
        finite, t_ns = self.finite(name), self.clocks[name][0]
        if finite.all() and (np.diff(t_ns) > 0).all():
            return t_ns, table
        kept = np.flatnonzero(finite)
        times, first = np.unique(t_ns[kept], return_index=True)
        return times, table.take(kept[first])

    def finite(self, name: str) -> np.ndarray:
        """[n] bool: samples without NaN or infinity."""
        table = self.tables[name]
        good = np.ones(len(table), bool)
        for _, values in table.parts():
            good &= np.isfinite(values).all(axis=1)
        return good
