"""HDF5 without trust: what is opened lies in the file itself, is no object, and is of a size that the limits allow.

An HDF5 file may name other files (external links, external storage, virtual datasets), hold pickled Python objects or
references, and claim any size; none of that is followed or read.
"""

from typing import Any

import h5py
import numpy as np

from ray_jobs.seam.configs import Limits
from ray_jobs.seam.errors import DataError

# What damaged bytes raise in h5py and in the library below it.
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError, MemoryError)


def child(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at the path below the group, or None. Raises DataError where a link leads there, or the file is damaged."""
    here: Any = group
    for name in path.split("/"):
        try:
            if not isinstance(here, h5py.Group) or name not in here:
                return None
            link = here.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise DataError(f"{path} is a link, and links are not followed")
            here = here[name]
        except DAMAGE as error:
            raise DataError(f"{path} cannot be opened: {type(error).__name__}: {error}") from error
    return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def dataset(group: h5py.Group, path: str) -> h5py.Dataset | None:
    """The dataset at the path, or None. Raises DataError where it is not in this file alone, or is of no plain numbers."""
    found = child(group, path)
    if not isinstance(found, h5py.Dataset):
        return None
    if found.is_virtual or found.external:
        raise DataError(f"{path} takes its data from other files, and those are not read")
    return found


def numbers(group: h5py.Group, path: str, limits: Limits) -> np.ndarray | None:
    """[n, d] f64 (a scalar per row is one column), or None where there is no such dataset. Raises DataError."""
    found = dataset(group, path)
    if found is None:
        return None
    if found.dtype.kind not in "fiub" or not 1 <= len(found.shape) <= 3:
        raise DataError(f"{path} holds {found.dtype} of shape {found.shape}, and no list of numbers")
    width = int(np.prod(found.shape[1:], dtype=object)) if len(found.shape) > 1 else 1
    if width > limits.values:
        raise DataError(f"{path} has {width} values a row, more than limits.values ({limits.values})")
    if found.shape[0] * max(width, 1) * 8 > limits.episode_mb << 20:
        raise DataError(f"{path} claims {found.shape[0]} rows of {width} values, more than limits.episode_mb ({limits.episode_mb})")
    _chunk(found, path, limits)
    try:
        return np.asarray(found[()], np.float64).reshape(found.shape[0], width)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def pictures(group: h5py.Group, path: str, limits: Limits) -> h5py.Dataset | None:
    """A dataset of pictures, one a row: [n, h, w, c] or [n, h, w] numbers, or [n] or [n, bytes] compressed. Raises DataError."""
    found = dataset(group, path)
    if found is None:
        return None
    ragged = h5py.check_vlen_dtype(found.dtype)
    kind, rank = np.dtype(ragged) if ragged is not None else found.dtype, len(found.shape)
    if kind.kind not in "uif" or rank == 0 or (ragged is not None and rank != 1) or (ragged is None and rank not in (2, 3, 4)):
        raise DataError(f"{path} holds {found.dtype} of shape {found.shape}, and no pictures")
    if rank >= 3 and found.shape[1] * found.shape[2] > limits.picture_mpx * 1_000_000:
        raise DataError(f"{path} has pictures of {found.shape[2]} x {found.shape[1]}, more than limits.picture_mpx ({limits.picture_mpx})")
    if rank == 2 and found.shape[1] * kind.itemsize > limits.message_mb << 20:
        raise DataError(f"{path} has rows of {found.shape[1]} bytes, more than limits.message_mb ({limits.message_mb})")
    _chunk(found, path, limits)
    return found


def _chunk(found: h5py.Dataset, path: str, limits: Limits) -> None:
    size = int(np.prod(found.chunks, dtype=object)) * found.dtype.itemsize if found.chunks else 0
    if size > limits.chunk_mb << 20:
        raise DataError(f"{path} has chunks of {size} bytes, more than limits.chunk_mb ({limits.chunk_mb})")


def attribute(group: h5py.Group | h5py.Dataset, name: str, limits: Limits) -> Any:
    """A number or a text, or None where there is none of that name or it is something else."""
    try:
        if name not in group.attrs:
            return None
        about = group.attrs.get_id(name)
        if about.get_storage_size() > limits.document_mb << 20 or int(np.prod(about.shape, dtype=object)) != 1:
            return None
        value = group.attrs[name]
    except DAMAGE:
        return None
    value = value.item() if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1 else value
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str | int | float | bool) else None
