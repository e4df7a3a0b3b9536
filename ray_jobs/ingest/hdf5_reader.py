"""HDF5 in the two shapes that robot learning uses: robomimic's and robosuite's, and ALOHA's.

robomimic, robosuite: data/<demo>/{actions, states, obs/<key>} (https://robomimic.github.io/docs/datasets/overview.html);
ALOHA: observations/{qpos, qvel, images/<camera>} and action, one episode a file (https://github.com/tonyzhaozh/aloha).
Neither has a wall clock, so the clock is synthetic and the day is the upload's.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np

from ray_jobs.episode import Clip, Episode, EpisodeMeta, Stream
from ray_jobs.ingest import values
from ray_jobs.ingest.clips import MEDIA_ERRORS, STORE_ERRNOS, DepthClip, ImageClip
from ray_jobs.ingest.hdf5_file import DAMAGE, attribute, child, dataset, numbers, pictures
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts, content_id
from ray_jobs.seam.configs import IngestSettings
from ray_jobs.seam.errors import DataError, StoreError
from ray_jobs.seam.store import Store

MAGIC = b"\x89HDF\r\n\x1a\n"
ROBOMIMIC_HZ, ALOHA_HZ = 20.0, 50.0  # robosuite's control_freq by default; ALOHA's DT is 0.02 s
RATE_NAMES = ("fps", "frequency", "control_freq", "hz")
TIME_NAMES = ("timestamp", "timestamps", "time")
# The part of robomimic's observations that is the robot's own position; velocities and derived values repeat it.
POSITIONS = re.compile(r"(joint_pos|eef_pos|eef_quat|gripper_qpos|ee_pos|ee_ori|ee_states|joint_states|gripper_states|qpos)$")
LARGEST_XML = 8 << 20


@dataclass
class _Demo:
    """One episode of a file, wherever its parts lie."""

    name: str
    group: h5py.Group
    action: str
    state: tuple[str, ...]
    images: dict[str, str]
    hz: float
    task: str = ""
    notes: list[str] = field(default_factory=list)


class Hdf5Reader:
    name = "hdf5"
    folder_marker: str | None = None

    def recognises(self, upload: Upload, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        return UploadFacts()  # it has no clock, and the index opens no foreign database in its own process

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        with store.local_copy(upload.path) as path:
            try:
                file = h5py.File(path, "r", locking=False)
            except DAMAGE as error:
                yield Refused(f"the HDF5 file is damaged: {error}")
                return
            with file:
                try:
                    demos = list(_demos(file, settings))
                    unknown = "" if demos else _unknown(file)
                except (DataError, *DAMAGE) as error:
                    yield Refused(f"the HDF5 file cannot be read: {error}")
                    return
                if unknown:
                    yield Refused(unknown)
                offset_ns = 0
                for demo in demos:
                    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
                        try:
                            recorded = _recorded(demo, upload, Path(folder), offset_ns, settings)
                        except (DataError, *DAMAGE, *MEDIA_ERRORS, *values.BROKEN_IMAGE) as error:
                            if getattr(error, "errno", None) in STORE_ERRNOS:
                                raise StoreError(f"cannot read {upload.path}, or write its clips to a temporary folder: {error}") from error
                            yield Refused(str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}", demo.name)
                            continue
                        offset_ns = recorded.end_ns
                        yield recorded


def _unknown(file: h5py.File) -> str:
    names = sorted(str(name) for name in list(file.keys())[:100])
    held = ", ".join(names[:8]) or "nothing"
    return f"an HDF5 file of neither robomimic's shape (data/demo_0/actions) nor ALOHA's (observations/qpos, action): it holds {held}"


def _demos(file: h5py.File, settings: IngestSettings) -> Iterator[_Demo]:
    """Raises DataError, or one of DAMAGE."""
    data = child(file, "data")
    if isinstance(data, h5py.Group):
        yield from _robomimic(data, settings)
    elif child(file, "observations/qpos") is not None or (child(file, "action") is not None and child(file, "observations") is not None):
        limits = settings.limits
        images = child(file, "observations/images")
        cameras = {str(name): f"observations/images/{name}" for name in sorted(images.keys())} if isinstance(images, h5py.Group) else {}
        given = next((found for name in RATE_NAMES if isinstance(found := attribute(file, name, limits), int | float) and found > 0), None)
        notes = [] if given or settings.hdf5_fps else [f"no rate in the file: taken as {ALOHA_HZ:g} Hz, as ALOHA records"]
        task = next((found for name in ("task", "language_instruction", "instruction") if isinstance(found := attribute(file, name, limits), str)), "")
        yield _Demo("", file, "action", ("observations/qpos",), cameras, float(given or settings.hdf5_fps or ALOHA_HZ), task, notes)


def _robomimic(data: h5py.Group, settings: IngestSettings) -> Iterator[_Demo]:
    limits = settings.limits
    about: dict[str, Any] = {}
    for name in ("env_args", "env_info"):
        text = attribute(data, name, limits)
        try:
            found = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            found = None
        about |= found if isinstance(found, dict) else {}
    inner = about.get("env_kwargs")
    freq = (inner if isinstance(inner, dict) else about).get("control_freq")
    given = float(freq) if isinstance(freq, int | float) and freq > 0 else None
    notes = [] if given or settings.hdf5_fps else [f"no rate in the file: taken as {ROBOMIMIC_HZ:g} Hz, robosuite's own"]
    task = next((about[name] for name in ("language_instruction", "env_name") if isinstance(about.get(name), str)), "") or attribute(data, "env", limits)
    names = sorted((str(name) for name in data), key=lambda name: (re.sub(r"\d+$", "", name), int(re.sub(r"\D", "", name)[-18:] or 0), name))
    for name in names:
        demo = child(data, name)
        if not isinstance(demo, h5py.Group):
            continue
        observed = child(demo, "obs")
        keys = sorted(str(key) for key in observed) if isinstance(observed, h5py.Group) else []
        ranks = {key: len(found.shape) for key in keys if (found := dataset(demo, f"obs/{key}")) is not None}
        low = [key for key, rank in ranks.items() if rank in (1, 2) and POSITIONS.search(key)]
        low = low or [key for key, rank in ranks.items() if rank == 2 and "image" not in key]
        images = {re.sub(r"_(image|rgb)$", "", key): f"obs/{key}" for key, rank in ranks.items() if rank >= 3}
        hz = given or settings.hdf5_fps or ROBOMIMIC_HZ
        yield _Demo(name, demo, "actions", tuple(f"obs/{key}" for key in low) or ("states",), images, hz, str(task or ""), list(notes))


def _recorded(demo: _Demo, upload: Upload, folder: Path, offset_ns: int, settings: IngestSettings) -> Recorded:
    """Raises DataError, or one of DAMAGE, MEDIA_ERRORS or BROKEN_IMAGE."""
    limits, notes = settings.limits, demo.notes
    action = numbers(demo.group, demo.action, limits)
    state, names, t_s = _state(demo, settings)
    counts = {len(found) for found in (action, state) if found is not None}
    if len(counts) > 1:
        assert action is not None and state is not None
        notes.append(f"{len(state)} states and {len(action)} actions: the first {min(counts)} of both were kept")
    count = min(counts, default=0)
    if t_s is None:
        t_s = next((found[:, 0] for name in TIME_NAMES if (found := numbers(demo.group, name, limits)) is not None and len(found) >= count), None)
    t_ns = _times(t_s, count, demo, notes)
    streams: dict[str, Stream] = {}
    for name, found in (("state", state), ("action", action)):
        if found is None:
            notes.append(f"no {name}")
        elif count:
            with np.errstate(over="ignore"):
                streams[name] = Stream(t_ns, t_ns, found[:count].astype(np.float32))
    clips: dict[str, Clip] = {}
    depths: dict[str, Clip] = {}
    paths: dict[str, Path] = {}
    media: dict[str, bytes] = {}
    for camera, path in demo.images.items():
        camera = re.sub(r"[^A-Za-z0-9_-]", "_", camera) or "camera"
        clip = _clip(demo, camera, path, t_ns, folder, settings)
        if clip is None:
            continue
        kind, (depths if isinstance(clip, DepthClip) else clips)[camera] = "depth" if isinstance(clip, DepthClip) else "camera", clip.close()
        paths[camera], media[f"{kind}:{camera}"] = clip.path, clip.digest.digest()
        at = t_ns[: clip.frames] if len(t_ns) >= clip.frames else np.round(np.arange(clip.frames) * 1e9 / demo.hz).astype(np.int64)
        if count and clip.frames != count:
            notes.append(f"{clip.frames} frames of {camera} for {count} states")
        streams[f"{kind}:{camera}"] = Stream(at, at, np.zeros((clip.frames, 0), np.float32))
    if not streams:
        raise DataError("it has neither states, actions nor pictures")
    success = attribute(demo.group, "success", limits)
    meta = EpisodeMeta(
        episode_id=content_id(streams, media),
        robot=upload.robot,
        task=demo.task,
        fps=demo.hz,
        state_names=names if "state" in streams else (),
        action_names=tuple(f"action_{number}" for number in range(streams["action"].values.shape[1])) if "action" in streams else (),
        cameras=clips,
        depth=depths,
        source="hdf5",
        upload=upload.path,
        success=success if isinstance(success, bool) else None,
        synthetic_clock=True,
        notes=tuple(notes),
    )
    end_ns = max(int(stream.t_ns[-1]) for stream in streams.values()) + round(1e9 / demo.hz)
    return Recorded(Episode(meta, streams), paths, offset_ns, offset_ns + end_ns)


def _state(demo: _Demo, settings: IngestSettings) -> tuple[np.ndarray | None, tuple[str, ...], np.ndarray | None]:
    """([n, d] values, their names, times in s where the values hold them)."""
    columns: list[np.ndarray] = []
    names: list[str] = []
    for path in demo.state:
        found = numbers(demo.group, path, settings.limits)
        if found is None:
            continue
        if path == "states":
            return _simulated(demo, found, settings)
        columns.append(found)
        key = PurePosixPath(path).name
        names += [f"{key}_{number}" for number in range(found.shape[1])] if found.shape[1] > 1 else [key]
    if not columns:
        return None, (), None
    count = min(len(found) for found in columns)
    if any(len(found) != count for found in columns):
        demo.notes.append(f"observations of different lengths: the first {count} rows of each were kept")
    return np.concatenate([found[:count] for found in columns], axis=1), tuple(names), None


def _simulated(demo: _Demo, states: np.ndarray, settings: IngestSettings) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """MuJoCo's flattened state is time, positions, velocities. The robot's joints out of it: by the model in the file, or where
    the second half is the rate of change of the first, which it is for a robot without free objects.
    """
    steps = np.diff(states[:, 0])
    t_s = states[:, 0] if len(steps) and states.shape[1] > 2 and (steps > 0).all() else None
    joints = _joints(attribute(demo.group, "model_file", settings.limits))
    width = sum(size for _, size in joints)
    velocities = sum(6 if size == 7 else 3 if size == 4 else size for _, size in joints)
    if joints and states.shape[1] == 1 + width + velocities:
        starts = np.cumsum([1, *(size for _, size in joints)])
        places = [int(at) for at, (_, size) in zip(starts, joints, strict=False) if size == 1]
        demo.notes.append(f"the robot's {len(places)} joints of the simulator's {states.shape[1]} values")
        return states[:, places], tuple(name for name, size in joints if size == 1), t_s
    half = (states.shape[1] - 1) // 2
    if t_s is not None and states.shape[1] == 1 + 2 * half and _is_rate(states[:, 1 : 1 + half], states[:, 1 + half :], t_s):
        demo.notes.append(f"the first {half} of the simulator's {states.shape[1]} values: the rest is their rate of change and the time")
        return states[:, 1 : 1 + half], tuple(f"state_{number}" for number in range(1, 1 + half)), t_s
    first = 1 if t_s is not None else 0
    demo.notes.append("the simulator's whole state: its model is not in the file, so that joints cannot be told from objects")
    return states[:, first:], tuple(f"state_{number}" for number in range(first, states.shape[1])), t_s


def _is_rate(values: np.ndarray, rates: np.ndarray, t_s: np.ndarray) -> bool:
    """Whether every column that moves changes as its partner says (correlation above 0.9)."""
    slopes = np.gradient(values, t_s, axis=0)
    moving = [at for at in range(values.shape[1]) if np.std(slopes[:, at]) > 0 and np.std(rates[:, at]) > 0]
    return bool(moving) and all(np.corrcoef(slopes[:, at], rates[:, at])[0, 1] > 0.9 for at in moving)


def _joints(model: Any) -> list[tuple[str, int]]:
    """(name, positions) of each joint of a MuJoCo model in its order: 7 of a free one, 4 of a ball, else 1; [] where it does not parse.

    expat, below ElementTree, refuses documents that grow by their entities and opens no external ones.
    """
    if not isinstance(model, str) or not model.lstrip().startswith("<") or len(model) > LARGEST_XML:
        return []
    try:
        body = ElementTree.fromstring(model).find("worldbody")
    except (ElementTree.ParseError, RecursionError, ValueError):
        return []
    sizes = {"free": 7, "ball": 4}
    found: list[tuple[str, int]] = []
    for element in body.iter() if body is not None else ():
        if element.tag in ("joint", "freejoint"):
            found.append((element.get("name") or f"joint_{len(found)}", 7 if element.tag == "freejoint" else sizes.get(element.get("type") or "", 1)))
    return found


def _times(t_s: np.ndarray | None, count: int, demo: _Demo, notes: list[str]) -> np.ndarray:
    """[count] ns from 0: as recorded where the file has times that rise, else by the rate."""
    if t_s is not None and count > 1:
        steps = np.diff(t_s[:count])
        if np.isfinite(steps).all() and (steps >= 0).all() and 0 < t_s[count - 1] - t_s[0] < 31 * 86_400:
            demo.hz = round(1.0 / float(np.median(steps)), 3) if np.median(steps) > 0 else demo.hz
            notes[:] = [note for note in notes if not note.startswith("no rate in the file")]
            return np.round((t_s[:count] - t_s[0]) * 1e9).astype(np.int64)
        notes.append("its times do not rise: rows taken at the rate")
    return np.round(np.arange(count) * 1e9 / demo.hz).astype(np.int64)


def _clip(demo: _Demo, camera: str, path: str, t_ns: np.ndarray, folder: Path, settings: IngestSettings) -> ImageClip | None:
    """The camera's frames, one a row; None where there are none. Raises DataError, or one of DAMAGE, MEDIA_ERRORS, BROKEN_IMAGE."""
    found = pictures(demo.group, path, settings.limits)
    if found is None or not len(found):
        return None
    deep = len(found.shape) in (3, 4) and (found.dtype.kind == "f" or found.dtype.itemsize == 2) and (len(found.shape) == 3 or found.shape[3] == 1)
    clip = DepthClip(folder / f"{camera}.mkv") if deep else ImageClip(folder / f"{camera}.mp4")
    for row in range(len(found)):
        at = int(t_ns[row]) if row < len(t_ns) else round(row * 1e9 / demo.hz)
        raw = np.asarray(found[row])
        if isinstance(clip, DepthClip):
            kept = clip.add_depth(values.millimetres(raw.reshape(raw.shape[:2])), at, raw.tobytes())
        elif raw.ndim == 1:
            data = raw.astype(np.uint8).tobytes()
            kept = clip.add(np.asarray(values.picture(data, settings.limits).convert("RGB")), "rgb24", at, data.rstrip(b"\0"))
        else:
            kept = clip.add(*_pixels(raw), at, raw.tobytes())
        if not kept:
            raise DataError(f"frame {row} of {camera} has another size than the first")
    return clip


def _pixels(raw: np.ndarray) -> tuple[np.ndarray, str]:
    """([h, w, 3] or [h, w] u8, FFmpeg layout) of a raw picture, channels last or first, bytes or fractions of 1."""
    if raw.ndim == 3 and raw.shape[2] not in (1, 3, 4) and raw.shape[0] in (1, 3, 4):
        raw = raw.transpose(1, 2, 0)
    if raw.dtype.kind == "f":
        raw = np.clip(np.nan_to_num(raw) * (255.0 if np.nanmax(raw, initial=0.0) <= 1.0 else 1.0), 0, 255)
    raw = np.ascontiguousarray(raw, np.uint8)
    if raw.ndim == 2 or raw.shape[2] == 1:
        return raw.reshape(raw.shape[:2]), "gray"
    if raw.shape[2] not in (3, 4):
        raise DataError(f"pictures of {raw.shape[2]} channels")
    return raw, "rgb24" if raw.shape[2] == 3 else "rgba"
