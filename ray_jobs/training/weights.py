"""Tensors at rest in the safetensors layout (8 bytes of length, a JSON header, raw little-endian values).

Nothing is unpickled, so a foreign file can at worst be refused; the same tensors give the same bytes.
Layout: https://github.com/huggingface/safetensors#format
"""

import json

import numpy as np

from ray_jobs.seam.errors import DataError

NAMES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
LETTERS = {kind: name for name, kind in NAMES.items()}


def to_bytes(tensors: dict[str, np.ndarray], note: dict[str, str] | None = None) -> bytes:
    """`note`: strings that travel in the header."""
    header: dict[str, object] = {"__metadata__": note} if note else {}
    parts, offset = [], 0
    for name in sorted(tensors):
        part = np.asarray(tensors[name], order="C")
        raw = part.tobytes()
        header[name] = {"dtype": LETTERS[part.dtype], "shape": list(part.shape), "data_offsets": [offset, offset + len(raw)]}
        parts.append(raw)
        offset += len(raw)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def from_bytes(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and note. Raises DataError, naming `where`, for anything that is not whole."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        note = header.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        tensors = {}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            values: np.ndarray = np.frombuffer(body[start:stop], dtype=NAMES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"]).copy()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a whole safetensors file ({type(error).__name__}): train again, or restore it") from error
    return tensors, note
