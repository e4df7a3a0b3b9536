"""MCAP files: which topics mean what, where episodes begin and end, and their streams and clips."""

import re
from collections.abc import Iterator

from mcap.records import Message

from ray_jobs.ingest import mcap_messages as messages
from ray_jobs.ingest.mcap_episodes import Chosen, Recorder
from ray_jobs.ingest.mcap_file import MAGIC, Survey, peeked, ranged, records, surveyed
from ray_jobs.ingest.reader import Recorded, Refused, Upload, UploadFacts
from ray_jobs.seam.configs import IngestSettings, Topics
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store

# Parts of a topic's name that say "camera" and not which one.
GENERIC = {"camera", "cameras", "image", "image_raw", "image_rect", "image_rect_color", "image_color", "compressed", "color", "video", "rgb", "sensors"}
PREFERENCE = {"video": 0, "compressed": 1, "image": 2}


class McapReader:
    name = "mcap"
    folder_marker: str | None = None

    def recognises(self, upload: Upload, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def peek(self, store: Store, upload: Upload) -> UploadFacts:
        entry = upload.files[0]
        survey = peeked(ranged(store, entry.key, entry.size), entry.modified_ns)
        robot = survey.metadata.get("recording", {}).get("robot")
        return UploadFacts(robot=robot, start_ns=survey.start_ns, end_ns=survey.end_ns)

    def read(self, store: Store, upload: Upload, settings: IngestSettings) -> Iterator[Recorded | Refused]:
        with store.local_copy(upload.path) as path, open(path, "rb") as source:
            try:
                survey = surveyed(source)
            except DataError as error:
                yield Refused(str(error))
                return
            chosen = choose(survey, settings.topics)
            if chosen.refusal:
                yield Refused(chosen.refusal, start_ns=survey.start_ns)
                return
            losses: list[str] = []
            with Recorder(upload, survey, chosen, losses) as recorder:
                for record in records(source, losses):
                    if not isinstance(record, Message):
                        continue
                    if record.channel_id in chosen.markers:
                        yield from recorder.mark(record)
                    else:
                        recorder.take(record)
                yield from recorder.finish()


def choose(survey: Survey, topics: Topics) -> Chosen:
    """By the settings where they name a topic, else by message type and the usual names. Topics without messages do not count."""
    chosen, decoders, undecodable = Chosen(), messages.Decoders(), []
    kinds: dict[int, str] = {}
    for number, channel in sorted(survey.channels.items()):
        if survey.counts and not survey.counts.get(number):
            continue
        try:
            chosen.decoders[number] = decoders.find(channel, survey.schemas.get(channel.schema_id))
        except messages.UNDECODABLE as error:
            undecodable.append(str(error))
            continue
        kind = messages.kind_of(survey.schemas.get(channel.schema_id))
        if kind is not None:
            kinds[number] = kind
    topic = {number: survey.channels[number].topic for number in kinds}
    acting = {n for n, kind in kinds.items() if kind in ("joints", "array", "trajectory") and messages.ACTION_NAME.search(topic[n].lower())}

    def rank(number: int) -> tuple[bool, bool, int, str]:
        name = topic[number]
        return (name != "/joint_states", "joint_state" not in name, -survey.counts.get(number, 0), name)

    wanted = [n for n in kinds if (topic[n] == topics.state if topics.state else kinds[n] == "joints" and n not in acting)]
    for number in sorted(wanted, key=rank)[:1]:
        chosen.state = {n: kinds[n] for n in wanted if topic[n] == topic[number]}
    wanted = [n for n in kinds if (topic[n] == topics.action if topics.action else n in acting)]
    for number in sorted(wanted, key=lambda n: (kinds[n] == "trajectory", *rank(n)))[:1]:
        chosen.action = {n: kinds[n] for n in wanted if topic[n] == topic[number]}
    chosen.cameras = _cameras(kinds, topic, topics, chosen.notes)
    chosen.markers = {n: kinds.get(n, "text") for n, channel in survey.channels.items() if channel.topic == topics.markers and n in chosen.decoders}
    if not chosen.state and not chosen.cameras:
        found = sorted(f"{c.topic} ({survey.schemas[c.schema_id].name if c.schema_id in survey.schemas else 'no schema'})" for c in survey.channels.values())
        listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        reasons = [*survey.notes[:2], *undecodable[:4], f"no joint states and no camera: topics were {listed or 'none'}"]
        chosen.refusal = "; ".join(reasons) if survey.counts or survey.channels else "; ".join([*survey.notes[:2], "it holds no messages"])
    chosen.notes += [f"not read: {reason}" for reason in undecodable]
    return chosen


def _cameras(kinds: dict[int, str], topic: dict[int, str], topics: Topics, notes: list[str]) -> dict[str, tuple[int, str]]:
    pictures = sorted((n for n, kind in kinds.items() if kind in PREFERENCE), key=lambda n: (PREFERENCE[kinds[n]], topic[n]))
    if topics.cameras:
        return {name: (n, kinds[n]) for name, wanted in sorted(topics.cameras.items()) for n in pictures if topic[n] == wanted}
    cameras: dict[str, tuple[int, str]] = {}
    for number in pictures:
        parts = [part for part in topic[number].split("/") if part]
        telling = [part for part in parts if part not in GENERIC] or parts[-1:]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", "_".join(telling)) or "camera"
        if name in cameras:
            notes.append(f"not read: {topic[number]}, the same camera as {topic[cameras[name][0]]}")
        else:
            cameras[name] = (number, kinds[number])
    return dict(sorted(cameras.items()))
