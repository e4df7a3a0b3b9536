"""One Kubernetes context: the few calls that the launcher needs, and every failure as one of its own errors.

No process-wide configuration is touched, so one process may talk to several clusters.
"""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from orchestration.launching.effects import Denied, InvalidSpec, Unreachable

Object = dict[str, Any]
TIMEOUT_S = (5.0, 20.0)  # to connect, to answer
WATCH_S = 60  # the API server ends a watch after this; a silent network is noticed a little later
RESYNC_S = 600.0  # a whole list, in case an event was lost
GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
KUEUE = ("kueue.x-k8s.io", "v1beta2")
PAGE = 500
ROLE = "bind the launcher's Role (deploy/) to this account"
_NOT_OVER = "status.phase!=Succeeded,status.phase!=Failed"


class Gone(Exception):
    """No object of that name, or another one under it by now."""


class Kubernetes:
    """`context` of the kubeconfig (None: its current one; without any kubeconfig: the pod's service account)."""

    def __init__(self, namespace: str, kubeconfig: Path | None = None, context: str | None = None):
        self.namespace = namespace
        self.where = f"{context or 'the current context'}, namespace {namespace}"
        settings = client.Configuration()
        try:
            if kubeconfig is None and context is None and Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists():
                config.load_incluster_config(client_configuration=settings)
            else:
                config.load_kube_config(str(kubeconfig) if kubeconfig else None, context, client_configuration=settings, persist_config=False)
        except (ConfigException, OSError) as error:
            raise InvalidSpec(f"no Kubernetes credentials for {self.where}: {_line(error)}; set kubeconfig and context of the target") from error
        settings.retries = urllib3.Retry(0)  # the protocol asks again, and knows for how long
        settings.connection_pool_maxsize = 32  # a watch holds one
        self._api = client.ApiClient(settings)
        self._api.user_agent = "robot-flywheel"
        self._custom, self._core = client.CustomObjectsApi(self._api), client.CoreV1Api(self._api)

    def create(self, manifest: Object) -> Object:
        """The object as created; the one that is there where the name is taken."""
        try:
            with self._told("create the RayJob"):
                return _read(self._custom.create_namespaced_custom_object, GROUP, VERSION, self.namespace, PLURAL, manifest)
        except _Conflict:
            return self.get(manifest["metadata"]["name"])

    def get(self, name: str) -> Object:
        """Raises Gone."""
        with self._told("read the RayJob"):
            return _read(self._custom.get_namespaced_custom_object, GROUP, VERSION, self.namespace, PLURAL, name)

    def jobs(self, selector: str) -> list[Object]:
        with self._told("list RayJobs"):
            return list(_read(self._custom.list_namespaced_custom_object, GROUP, VERSION, self.namespace, PLURAL, label_selector=selector)["items"])

    def delete(self, name: str, uid: str) -> None:
        """Delete the RayJob of this uid; it stays visible until its pods are gone. Absent is fine."""
        body = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=uid), propagation_policy="Foreground")
        try:
            with self._told("delete the RayJob"):
                self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name, body=body, _request_timeout=TIMEOUT_S)
        except (Gone, _Conflict):
            return

    def pods(self, selector: str) -> list[Object]:
        with self._told("list pods"):
            return list(_read(self._core.list_namespaced_pod, self.namespace, label_selector=selector)["items"])

    def give_up_pod(self, name: str) -> None:
        """Remove a pod without waiting for its node, which is gone. Absent is fine."""
        try:
            with self._told(f"delete the pod {name}"):
                self._core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0, _request_timeout=TIMEOUT_S)
        except (Gone, _Conflict):
            return

    def events(self, name: str) -> list[Object]:
        """The events of one object, oldest first."""
        with self._told("list events"):
            found = _read(self._core.list_namespaced_event, self.namespace, field_selector=f"involvedObject.name={name}")
            return sorted(found["items"], key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def nodes(self) -> list[Object]:
        return self._all("list nodes", self._core.list_node)

    def pods_of_all(self) -> list[Object]:
        """Every pod of the cluster that is not over, whoever made it: what is free is what they leave."""
        return self._all("list the pods of all namespaces", self._core.list_pod_for_all_namespaces, field_selector=_NOT_OVER)

    def local_queue(self, name: str) -> Object:
        """A queue of Kueue in this namespace. Raises Gone."""
        with self._told("read the queue"):
            return _read(self._custom.get_namespaced_custom_object, *KUEUE, self.namespace, "localqueues", name)

    def cluster_queue(self, name: str) -> Object:
        """What is behind it: quotas, and what is reserved of them. Raises Gone."""
        with self._told("read the cluster's queue"):
            return _read(self._custom.get_cluster_custom_object, *KUEUE, "clusterqueues", name)

    def _all(self, doing: str, listing: Callable[..., Any], **options: Any) -> list[Object]:
        """Every page of a list."""
        found: list[Object] = []
        following = ""
        with self._told(doing):
            while True:
                page = _read(listing, limit=PAGE, _continue=following, **options)
                found += page["items"]
                following = page["metadata"].get("continue") or ""
                if not following:
                    return found

    def watched_job(self, name: str, changed: threading.Event) -> "Watched":
        def listing(**options: Any) -> Any:
            return self._custom.list_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, field_selector=f"metadata.name={name}", **options)

        return Watched(self._told, listing, changed)

    def watched_pods(self, selector: str, changed: threading.Event) -> "Watched":
        def listing(**options: Any) -> Any:
            return self._core.list_namespaced_pod(self.namespace, label_selector=selector, **options)

        return Watched(self._told, listing, changed)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise self._refusal(error, doing) from error
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:  # ValueError: half a document
            raise Unreachable(f"cannot {doing} in {self.where}: the API server does not answer ({type(error).__name__})") from error

    def _has_started(self) -> bool:
        """An API server that starts refuses everybody, even this question, until it has read the roles; some seconds later it says that it is ready."""
        try:
            self._api.call_api("/readyz", "GET", auth_settings=["BearerToken"], _preload_content=False, _request_timeout=TIMEOUT_S)
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True

    def _refusal(self, error: ApiException, doing: str) -> Exception:
        said = _message(error)
        match error.status:
            case 401:
                return Denied(f"cannot {doing} in {self.where}: the API server refuses the credentials (401); renew the token of this context")
            case 403 if not self._has_started():
                starting = "the API server does not say that it is ready (/readyz), and while it starts it refuses everybody; if it goes on"
                return Unreachable(f"cannot {doing} in {self.where}: not allowed (403): {said}; {starting}, {ROLE}")
            case 403:
                return Denied(f"cannot {doing} in {self.where}: not allowed (403): {said}; {ROLE}")
            case 404:
                return Gone(said)
            case 409:
                return _Conflict(said)
            case 400 | 422:
                return InvalidSpec(f"the cluster refuses the RayJob ({error.status}): {said}")
        return Unreachable(f"cannot {doing} in {self.where}: the API server answers {error.status}: {said}")


class _Conflict(Exception):
    """409: the name is taken, or the uid is not that one."""


class Watched:
    """The latest state of the objects behind one list call, kept by a watch in a thread of its own.

    What it holds is only served while it is in contact with the API server.
    """

    def __init__(self, told: Callable[[str], Any], listing: Callable[..., Any], changed: threading.Event):
        self._told, self._listing, self._changed = told, listing, changed
        self._objects: dict[str, Object] = {}
        self._error: Exception | None = None
        self._synced = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def objects(self) -> list[Object]:
        """Raises what the last contact raised (Unreachable, Denied) while there is none."""
        if not self._synced.wait(sum(TIMEOUT_S)):
            raise Unreachable("the API server did not answer the first list in time")
        if self._error is not None:
            raise self._error
        if not self._thread.is_alive():
            raise Unreachable("the watch has ended")
        return list(self._objects.values())

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        pause = 0.2
        while not self._stop.is_set():
            try:
                with self._told("watch"):
                    self._follow()
                pause = 0.2
                continue
            except (Unreachable, InvalidSpec) as error:
                self._error = error
            except (Gone, _Conflict) as error:
                self._error = Unreachable(f"the watch ended: {error}")
            self._synced.set()
            self._changed.set()
            self._stop.wait(pause)
            pause = min(2 * pause, 5.0)

    def _follow(self) -> None:
        """One list, and then its changes until it is time for another list."""
        listed = _read(self._listing)
        self._objects = {item["metadata"]["uid"]: item for item in listed["items"]}
        self._told_now()
        version = listed["metadata"]["resourceVersion"]
        deadline = RESYNC_S / WATCH_S
        while not self._stop.is_set() and deadline > 0:
            deadline -= 1
            stream = self._listing(
                watch=True,
                resource_version=version,
                timeout_seconds=WATCH_S,
                allow_watch_bookmarks=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT_S[0], WATCH_S + 15.0),
            )
            try:
                for line in watch.watch.iter_resp_lines(stream):
                    if not line:
                        continue
                    event = json.loads(line)
                    item = event["object"]
                    if event["type"] == "ERROR":  # 410: too old to go on from
                        return
                    version = item["metadata"]["resourceVersion"]
                    if event["type"] == "DELETED":
                        self._objects.pop(item["metadata"]["uid"], None)
                    elif event["type"] != "BOOKMARK":
                        self._objects[item["metadata"]["uid"]] = item
                    if event["type"] != "BOOKMARK":
                        self._told_now()
                    if self._stop.is_set():
                        return
            finally:
                stream.release_conn()

    def _told_now(self) -> None:
        self._error = None
        self._synced.set()
        self._changed.set()


def _read(call: Callable[..., Any], *arguments: Any, **options: Any) -> Object:
    """The answer as it came, in JSON. Raises ValueError where it is no whole JSON object: a proxy's page, half a document."""
    answer = call(*arguments, **options, _preload_content=False, _request_timeout=TIMEOUT_S)
    document = json.loads(answer.data)
    if not isinstance(document, dict):
        raise ValueError("the answer is no JSON object")
    return document


def _message(error: ApiException) -> str:
    try:
        return " ".join(str(json.loads(error.body or "")["message"]).split())[:600]
    except (ValueError, KeyError, TypeError):
        return _line(error.reason or "no reason given")


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
