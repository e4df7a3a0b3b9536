"""An API server that answers badly: each answer is one of the launcher's own errors, whatever call it comes to."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestration.launching.effects import Denied, InvalidSpec, Unreachable
from orchestration.launching.kuberay.api import Gone, Kubernetes

CALLS: dict[str, Callable[[Kubernetes], Any]] = {
    "create": lambda api: api.create({"metadata": {"name": "x"}}),
    "get": lambda api: api.get("x"),
    "jobs": lambda api: api.jobs("a=b"),
    "delete": lambda api: api.delete("x", "uid"),
    "pods": lambda api: api.pods("a=b"),
    "events": lambda api: api.events("x"),
    "nodes": lambda api: api.nodes(),
    "pods of all": lambda api: api.pods_of_all(),
    "local queue": lambda api: api.local_queue("x"),
    "cluster queue": lambda api: api.cluster_queue("x"),
    "give up": lambda api: api.give_up_pod("x"),
    "watched job": lambda api: api.watched_job("x", threading.Event()).objects(),
    "watched pods": lambda api: api.watched_pods("a=b", threading.Event()).objects(),
}


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `body`, of which `promised` more bytes are announced than come; /readyz with `ready`."""

    status, body, promised, ready = 200, b"{}", 0, 200
    pages: tuple[bytes, ...] = ()  # one after the other, before `body`
    daemon_threads = True

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/readyz":
            self.send_response(server.ready)
            self.end_headers()
            return
        server.asked.append(self.path)
        body, server.pages = (server.pages[0], server.pages[1:]) if server.pages else (server.body, ())
        self.send_response(server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + server.promised))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def api(server: Server, tmp_path: Path) -> Kubernetes:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    return Kubernetes("robots", tmp_path / "kubeconfig")


READ = [call for call in CALLS if call not in ("delete", "give up")]  # of a deletion the answer is not read: its status tells


@pytest.mark.parametrize("call", READ)
@pytest.mark.parametrize("body", [b'{"items": [{"metadata": {"na', b"<html>busy</html>"], ids=["half a document", "html"])
def test_what_is_no_whole_document_is_silence(api: Kubernetes, server: Server, call: str, body: bytes) -> None:
    server.body = body
    with pytest.raises(Unreachable):
        CALLS[call](api)


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_is_cut_is_silence(api: Kubernetes, server: Server, call: str) -> None:
    server.body, server.promised = b'{"items": [', 5000
    with pytest.raises(Unreachable):
        CALLS[call](api)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "error"), [(401, Denied), (403, Denied), (503, Unreachable), (500, Unreachable), (429, Unreachable), (422, InvalidSpec)])
def test_refusals(api: Kubernetes, server: Server, call: str, status: int, error: type[Exception]) -> None:
    server.status, server.body = status, json.dumps({"message": "because"}).encode()
    with pytest.raises(error, match=r"because|credentials"):
        CALLS[call](api)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("ready", [403, 500], ids=["before it has read the roles", "just after"])
def test_an_api_server_that_starts_refuses_everybody(api: Kubernetes, server: Server, call: str, ready: int) -> None:
    server.status, server.body, server.ready = 403, b'{"message": "because"}', ready
    with pytest.raises(Unreachable, match=r"because.* does not say that it is ready .* bind the launcher's Role") as caught:
        CALLS[call](api)
    assert not isinstance(caught.value, Denied)


def test_what_is_not_there(api: Kubernetes, server: Server) -> None:
    server.status, server.body = 404, b'{"message": "not found"}'
    with pytest.raises(Gone):
        api.get("x")
    api.delete("x", "uid")
    api.give_up_pod("x")


def test_nobody_at_home(api: Kubernetes, server: Server) -> None:
    server.shutdown()
    server.server_close()
    for call in CALLS.values():
        with pytest.raises(Unreachable, match="does not answer"):
            call(api)


def test_a_long_list_is_read_to_its_end(api: Kubernetes, server: Server) -> None:
    server.pages = (b'{"metadata": {"continue": "more"}, "items": [{"n": 1}]}', b'{"metadata": {"continue": ""}, "items": [{"n": 2}]}')
    assert api.nodes() == [{"n": 1}, {"n": 2}]
    assert "continue=more" in server.asked[1] and all("limit=500" in path for path in server.asked)
