"""What was asked of the API server since the cluster's start, from its audit log: metadata of every request, and RayJobs in full.

The log is written after the answer is sent: whoever asks right after a request of its own may have to ask again.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from testbed.control_plane import AUDIT_LOG


class CreatedRayJob(NamedTuple):
    name: str
    uid: str


class Request(NamedTuple):
    at: datetime
    verb: str  # get, list, watch, create, update, patch, delete, deletecollection
    uri: str
    resource: str  # with the subresource: pods/log
    namespace: str
    name: str
    code: int  # 0: not known
    user: str
    user_agent: str


def now() -> datetime:
    """For `since`. The log and the caller have the same clock."""
    return datetime.now(UTC)


def created_rayjobs(since: datetime | None = None, namespace: str | None = None) -> list[CreatedRayJob]:
    """Every RayJob that was ever created, in order, each uid once. Creations that were refused or only tried (dry run) are not there."""
    found: dict[str, str] = {}
    for event in _events(since, '"verb":"create"', '"resource":"rayjobs"'):
        if event["objectRef"].get("subresource") or event.get("responseStatus", {}).get("code") != 201 or "dryRun=" in event["requestURI"]:
            continue
        metadata = event["responseObject"]["metadata"]
        if namespace in (None, metadata["namespace"]):
            found[metadata["uid"]] = metadata["name"]
    return [CreatedRayJob(name, uid) for uid, name in found.items()]


def requests(since: datetime | None = None, *, user: str | None = None, user_agent: str | None = None) -> list[Request]:
    """Requests by the whole name of the user (`admin`, `system:serviceaccount:NAMESPACE:NAME`) and the beginning of the user agent; a watch counts once."""
    found: dict[str, Request] = {}
    words = [json.dumps(word)[1:-1] for word in (user, user_agent) if word is not None]
    for event in _events(since, *words):
        asked = event["user"].get("username", "")
        agent = event.get("userAgent", "")
        if (user is not None and asked != user) or (user_agent is not None and not agent.startswith(user_agent)):
            continue
        reference = event.get("objectRef", {})
        resource = "/".join(reference[part] for part in ("resource", "subresource") if part in reference)
        found[event["auditID"]] = Request(
            _time(event["requestReceivedTimestamp"]),
            event["verb"],
            event["requestURI"],
            resource,
            reference.get("namespace", ""),
            reference.get("name", ""),
            event.get("responseStatus", {}).get("code", 0),
            asked,
            agent,
        )
    return list(found.values())


def _events(since: datetime | None, *words: str) -> Iterator[dict[str, Any]]:
    """Lines with all the words, which are looked for before a line is parsed: there are many lines."""
    try:
        with AUDIT_LOG.open(encoding="utf-8") as log:
            for line in log:
                if line.endswith("\n") and all(word in line for word in words):  # the last line may be half written
                    event = json.loads(line)
                    if since is None or _time(event["requestReceivedTimestamp"]) >= since:
                        yield event
    except FileNotFoundError:
        return


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
