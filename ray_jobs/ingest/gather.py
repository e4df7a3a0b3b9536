"""Which files of a raw store make one upload. Pure: names alone decide, and what only the content tells the reader settles."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from ray_jobs.ingest.formats import READERS
from ray_jobs.ingest.reader import Upload
from ray_jobs.seam.store import Entry

# Names under which transfer tools write what is not whole yet (rclone, rsync, browsers, syncthing). Hidden names count too.
UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".rclonelink", "~")
# Companions of a recording, which are no uploads of their own: rosbag2's metadata, SQLite's journals, licences, readmes, checksums.
SIDECAR_NAMES = ("metadata.yaml", "thumbs.db", "desktop.ini")
SIDECAR_STEMS = ("license", "licence", "readme", "notice", "copying")
SIDECAR_SUFFIXES = (".db3-shm", ".db3-wal", ".db3-journal", ".md5", ".sha256")
BAG_METADATA = "metadata.yaml"
BAG_FILE = re.compile(r"\.(db3|mcap)(\.zstd)?$")
SPLIT = re.compile(r"(?P<stem>.+)_(?P<number>\d+)\.(?P<kind>bag|db3|mcap)$")
# Numbered names that count episodes and not the parts of one recording.
COUNTING = re.compile(r"(^|[^a-z])(ep|eps|episode|demo|demonstration|take|trial|traj|trajectory|run|rollout|sample|recording|seq|sequence)s?[_-]?$")
DATED = re.compile(r"\d{4}[-_]\d{2}[-_]\d{2}[-_T]\d{2}[-_]\d{2}[-_]\d{2}$")
RECORDING = re.compile(r"\.(bag|db3|mcap|hdf5|h5)$")
VIDEO = re.compile(r"\.(mp4|mkv|mov|avi|webm)$")
VIDEO_TIMES = re.compile(r"\.(csv|json|txt)$")


def is_unfinished(key: str) -> bool:
    parts = PurePosixPath(key).parts
    return any(part.startswith(".") for part in parts) or key.lower().endswith(UNFINISHED)


def is_sidecar(key: str) -> bool:
    name = PurePosixPath(key).name.lower()
    return name in SIDECAR_NAMES or name.split(".")[0] in SIDECAR_STEMS or name.endswith(SIDECAR_SUFFIXES)


def gather(entries: Iterable[Entry]) -> dict[str, Upload]:
    """Uploads by path. Every file is one, but for: the folder of a set (a reader's marker), the folder of a ROS 2 bag, the
    parts of a split recording (by the path of the first), and what stands beside a recording (a journal, its videos).
    """
    files = {entry.key: entry for entry in sorted(entries, key=lambda entry: entry.key) if not is_unfinished(entry.key)}
    owner = _sets(files)
    loose = [key for key in files if key not in owner]
    owner |= _bags(loose)
    owner |= _splits([key for key in loose if key not in owner])
    owner |= _companions([key for key in loose if key not in owner], owner)
    groups: dict[str, list[Entry]] = defaultdict(list)
    for key, entry in files.items():
        if key in owner or not is_sidecar(key):
            groups[owner.get(key, key)].append(entry)
    return {path: Upload(path, tuple(group)) for path, group in groups.items()}


def _sets(files: Iterable[str]) -> dict[str, str]:
    """Everything below the outermost folder that holds a reader's marker."""
    markers = [reader.folder_marker for reader in READERS if reader.folder_marker]
    roots = {str(PurePosixPath(key[: len(key) - len(marker)])) for key in files for marker in markers if ("/" + key).endswith("/" + marker)}
    owner: dict[str, str] = {}
    for key in files if roots else ():
        folders = [str(parent) for parent in PurePosixPath(key).parents]
        root = next((folder for folder in reversed(folders) if folder in roots), None)
        if root is not None:
            owner[key] = root
    return owner


def _bags(files: list[str]) -> dict[str, str]:
    """metadata.yaml and the storage files beside it are one ROS 2 bag; other files of the folder are not of it."""
    folders = {str(PurePosixPath(key).parent) for key in files if PurePosixPath(key).name == BAG_METADATA}
    inside = {key: str(PurePosixPath(key).parent) for key in files if str(PurePosixPath(key).parent) in folders}
    bags = {folder for key, folder in inside.items() if BAG_FILE.search(key)}
    return {key: folder for key, folder in inside.items() if folder in bags and (BAG_FILE.search(key) or is_sidecar(key))}


def _splits(files: list[str]) -> dict[str, str]:
    """Parts 0, 1, 2, … of one name, where a recorder writes such names: below the folder of that name, dated, or of ROS 1.

    Whether a part continues the one before is settled by its times (joined.py).
    """
    series: dict[tuple[str, str, str], dict[int, str]] = defaultdict(dict)
    for key in files:
        found = SPLIT.search(PurePosixPath(key).name)
        if found is None:
            continue
        folder, stem = PurePosixPath(key).parent, found["stem"]
        own_folder = folder.name == stem
        if own_folder or DATED.search(stem) or (found["kind"] == "bag" and not COUNTING.search(stem.lower())):
            series[str(folder), DATED.sub("", stem), found["kind"]][int(found["number"])] = key
    owner: dict[str, str] = {}
    for parts in series.values():
        count = next(number for number in range(len(parts) + 1) if number not in parts)
        if count > 1:
            owner |= {parts[number]: parts[0] for number in range(count)}
    return owner


def _companions(loose: list[str], owner: dict[str, str]) -> dict[str, str]:
    """Journals, and videos with their times, that stand beside a recording under its name or in a folder of its name."""
    recordings = {RECORDING.sub("", key): key for key in loose if RECORDING.search(key)}
    recordings |= {RECORDING.sub("", path) if RECORDING.search(path) else path: path for path in owner.values() if path != "."}
    found = {}
    for key in loose:
        base = re.sub(r"-(shm|wal|journal)$", "", key)
        if base != key and base in recordings.values():
            found[key] = base
        elif VIDEO.search(key) and (path := _beside(key, recordings)) is not None:
            found[key] = path
    videos = {VIDEO.sub("", key): path for key, path in found.items() if VIDEO.search(key)}
    for key in loose:
        if VIDEO_TIMES.search(key) and times_stem(key) in videos:
            found[key] = videos[times_stem(key)]
    return found


def times_stem(key: str) -> str:
    """The name of the video whose times a file holds: run_front of run_front.csv and of run_front_timestamps.csv."""
    return re.sub(r"[._-](timestamps?|times?|ts|frames?)$", "", VIDEO_TIMES.sub("", key))


def _beside(key: str, recordings: dict[str, str]) -> str | None:
    """The recording of a video: run.bag of run.mp4, run_front.mp4, run.front.mp4 and run/front.mp4. The longest name counts."""
    stem = VIDEO.sub("", key)
    if stem in recordings:
        return recordings[stem]
    ends = [at for at, letter in enumerate(stem) if letter in "_.-/"]
    return next((recordings[stem[:at]] for at in reversed(ends) if stem[:at] in recordings), None)
