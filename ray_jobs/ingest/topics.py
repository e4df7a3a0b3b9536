"""Which topics of a log mean state, action, camera and marker."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.ingest import values
from ray_jobs.ingest.decoders import ENCODINGS, UNDECODABLE, Decoders
from ray_jobs.ingest.log import Survey
from ray_jobs.seam.configs import IngestSettings, Topics

ACTION_NAME = re.compile(r"command|action|target|cmd|leader|master|desired|setpoint|reference")
SIDE = re.compile(r"(^|_)(left|right|l|r|\d+)(_|$)")
# Parts of a topic's name that say "camera" and not which one.
GENERIC = {
    *("camera", "cameras", "image", "image_raw", "image_rect", "image_rect_raw", "image_rect_color", "image_color", "compressed", "compresseddepth"),
    *("color", "video", "rgb", "sensors"),
}
PREFERENCE = {"video": 0, "compressed": 1, "image": 2}
# What is taken for the state, the first that there is; an action may be of any of them.
STATES = ("joints", "custom", "odometry", "pose", "planar")
ACTIONS = {"joints": 0, "array": 0, "custom": 0, "twist": 1, "pose": 2, "planar": 2, "trajectory": 3}


@dataclass
class Chosen:
    """What is read of a log: channel id -> kind of message. refusal: why nothing is, or None.

    topics: channel id -> topic. rank: topic -> place, by which streams of several topics are joined (0 leads).
    """

    state: dict[int, str] = field(default_factory=dict)
    action: dict[int, str] = field(default_factory=dict)
    cameras: dict[str, tuple[int, str]] = field(default_factory=dict)
    markers: dict[int, str] = field(default_factory=dict)
    decoders: dict[int, Callable[[bytes], Any]] = field(default_factory=dict)
    topics: dict[int, str] = field(default_factory=dict)
    rank: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: str | None = None


def choose(survey: Survey, settings: IngestSettings) -> Chosen:
    """By the settings where they name a topic, else by message type and the usual names. Topics without messages do not count."""
    chosen, decoders, undecodable = Chosen(), Decoders(settings.limits), []
    wanted = settings.topics
    kinds: dict[int, str] = {}
    for number, channel in sorted(survey.channels.items()):
        if survey.counts and not survey.counts.get(number):
            continue
        kind = values.kind_of(survey.schemas.get(channel.schema_id))
        named = channel.topic in (wanted.state, wanted.action, wanted.markers, *wanted.cameras.values())
        if kind is None and not named and channel.message_encoding in ENCODINGS:
            continue  # a definition that nobody asks for is not even compiled
        try:
            chosen.decoders[number] = decoders.find(channel, survey.schemas.get(channel.schema_id))
        except UNDECODABLE as error:
            undecodable.append(str(error) or type(error).__name__)
            continue
        if kind is not None:
            kinds[number] = kind
    chosen.topics = {number: survey.channels[number].topic for number in survey.channels}
    _streams(chosen, survey, kinds, wanted)
    chosen.cameras = _cameras(kinds, chosen.topics, wanted, chosen.notes)
    chosen.markers = {n: kinds.get(n, "text") for n, topic in chosen.topics.items() if topic == wanted.markers and n in chosen.decoders}
    if not chosen.state and not chosen.cameras:
        found = sorted(f"{c.topic} ({survey.schemas[c.schema_id].name if c.schema_id in survey.schemas else 'no schema'})" for c in survey.channels.values())
        listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        reasons = [*survey.notes[:2], *undecodable[:4], f"no joint states and no camera: topics were {listed or 'none'}"]
        empty = not survey.channels or (not survey.counts and survey.start_ns is None)
        chosen.refusal = "; ".join([*survey.notes[:2], "it holds no messages"] if empty else reasons)
    chosen.notes += [f"not read: {reason}" for reason in undecodable]
    return chosen


def _streams(chosen: Chosen, survey: Survey, kinds: dict[int, str], wanted: Topics) -> None:
    topic = chosen.topics
    acting = {n for n, kind in kinds.items() if kind in ACTIONS and (ACTION_NAME.search(topic[n].lower()) or kind == "twist")}

    def rank(number: int) -> tuple[bool, bool, int, str]:
        name = topic[number]
        return (name != "/joint_states", "joint_state" not in name, -survey.counts.get(number, 0), name)

    if wanted.state:
        states = [n for n in kinds if topic[n] == wanted.state]
    else:
        present = [n for n in kinds if n not in acting]
        states = sorted((n for n in present if kinds[n] == "joints"), key=rank)
        lead = next((kind for kind in STATES if any(kinds[n] == kind for n in present)), None)
        states = states or sorted((n for n in present if kinds[n] == lead), key=rank)
        if lead in ("joints", "custom"):
            states += sorted((n for n in present if kinds[n] == "odometry"), key=lambda n: (topic[n] != "/odom", *rank(n)))[:1]
    if wanted.action:
        actions = [n for n in kinds if topic[n] == wanted.action]
    else:
        actions = sorted((n for n in kinds if n in acting), key=lambda n: (ACTIONS[kinds[n]], *rank(n)))
        lead_kind = kinds[actions[0]] if actions else None
        actions = [n for n in actions if siblings(topic[n], topic[actions[0]]) or (kinds[n] == "twist" and lead_kind != "twist")]
    chosen.state = {n: kinds[n] for n in states}
    chosen.action = {n: kinds[n] for n in actions if n not in chosen.state}
    for order in (states, actions):
        for number in order:
            chosen.rank.setdefault(topic[number], len(chosen.rank))


def siblings(one: str, other: str) -> bool:
    """Whether two topics differ in one part of their names at most, as /left/joint_states and /right/joint_states do."""
    return telling(one, other) is not None or one == other


def telling(topic: str, other: str) -> str | None:
    """The one part of `topic` that is not in `other`, or None where they differ in more or in none.

    The last part says what is sent, so there only a side or a number tells two of a kind apart.
    """
    parts, others = topic.split("/"), other.split("/")
    if len(parts) != len(others):
        return None
    found = [at for at, (part, than) in enumerate(zip(parts, others, strict=True)) if part != than]
    if len(found) != 1 or (found[0] == len(parts) - 1 and not (SIDE.search(parts[-1]) and SIDE.search(others[-1]))):
        return None
    return parts[found[0]]


def _cameras(kinds: dict[int, str], topic: dict[int, str], topics: Topics, notes: list[str]) -> dict[str, tuple[int, str]]:
    pictures = sorted((n for n, kind in kinds.items() if kind in PREFERENCE), key=lambda n: (PREFERENCE[kinds[n]], topic[n]))
    if topics.cameras:
        return {name: (n, kinds[n]) for name, wanted in sorted(topics.cameras.items()) for n in pictures if topic[n] == wanted}
    cameras: dict[str, tuple[int, str]] = {}
    for number in pictures:
        parts = [part for part in topic[number].split("/") if part]
        telling = [part for part in parts if part.lower() not in GENERIC] or parts[-1:]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", "_".join(telling)) or "camera"
        if name in cameras:
            notes.append(f"not read: {topic[number]}, the same camera as {topic[cameras[name][0]]}")
        else:
            cameras[name] = (number, kinds[number])
    return dict(sorted(cameras.items()))
