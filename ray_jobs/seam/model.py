"""Base of every document that crosses the seam, and the one way to hash one."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen, and an unknown key is an error: a typo in a configuration must not be silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Models are dumped first."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_dump)


def _dump(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no canonical form")


def digest(*values: Any) -> str:
    """SHA-256 (hex, 64 characters) of the canonical form of the values."""
    return hashlib.sha256(canonical(list(values)).encode()).hexdigest()
