"""A proxy that disturbs: before the API server (it ends TLS and begins it anew) or before an S3 server. It binds a free port.

    with proxy.before_api_server() as api, api.disturbed(Fault("answer", status=503, share=0.5, only=lambda method, path: method == "POST")):
        Kubernetes(proxy.kubeconfig(api))
    with proxy.before_s3(testbed.state().s3) as front:
        front.set(Fault("stall", seconds=5, times=1))
        s3.client(dataclasses.replace(testbed.state().s3, endpoint=front.url), account)

Headers go through as they are (S3's signatures stay right), bodies and watches piece by piece as they come.
"""

import contextlib
import json
import random
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from testbed.credentials import CA, CERTIFICATE, KEY, token_of, write_kubeconfig
from testbed.description import S3Server
from testbed.exchange import exchange, reset
from testbed.layout import API_PORT, BRIDGE_ADDRESS, KUBECONFIG, RUN
from testbed.streams import Cut, Gone, Head, Stream, copy_body, read_head

Which = Callable[[str, str], bool]  # method, path with query


@dataclass(frozen=True)
class Fault:
    """What happens to a share of the requests for which `only` holds, at most `times` times.

    answer       the server never hears of it, the client gets `status`: 503, 401, 429 …, from S3 with `code`
    stall        the server never hears of it, the client hears nothing for `seconds`; then the connection is closed
    reset        the server never hears of it, the client gets a TCP reset
    cut          the answer ends in the middle of its body
    cut_upload   the server gets half of the request's body, then both connections are gone
    lose_answer  the server does what it was asked, the client gets a TCP reset for an answer
    flip         one bit in the middle of the answer's body is another
    flip_upload  the same of the request's body
    shorten      the answer has half its body and says so: the first half as if it were all
    drip         each piece of the answer's body (64 KiB at most) comes `seconds` after the one before
    """

    kind: Literal["answer", "stall", "reset", "cut", "cut_upload", "lose_answer", "flip", "flip_upload", "shorten", "drip"]
    status: int = 503
    code: str = "ServiceUnavailable"
    seconds: float = 0
    share: float = 1.0
    only: Which | None = None
    times: int | None = None


class Seen(NamedTuple):
    method: str
    path: str
    outcome: str  # "pass" or the fault's kind


def before_api_server(address: str = BRIDGE_ADDRESS) -> "FaultProxy":
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE, KEY)
    return FaultProxy((BRIDGE_ADDRESS, API_PORT), address, tls=(server, ssl.create_default_context(cafile=str(CA))))


def before_s3(server: S3Server, address: str = BRIDGE_ADDRESS) -> "FaultProxy":
    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    return FaultProxy((host, int(port)), address)


def kubeconfig(front: "FaultProxy") -> Path:
    """The administrator's, through the proxy. For a service account: service_account_kubeconfig(…, server=front.url)."""
    return write_kubeconfig(RUN / "accounts" / f"proxy-{secrets.token_hex(4)}.kubeconfig", token_of(KUBECONFIG), user="admin", server=front.url)


class FaultProxy:
    """`latency_s`: each request is that much later with the server."""

    def __init__(
        self, upstream: tuple[str, int], address: str, *, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None, seed: int = 0, latency_s: float = 0.0
    ):
        self._upstream, self._tls, self._latency_s = upstream, tls, latency_s
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left: int | None = None
        self._seen: list[Seen] = []
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        self._listener = socket.create_server((address, 0), backlog=128)
        self.url = f"http{'s' if tls else ''}://{address}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody gets through any more; connections that are open are reset."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def set(self, fault: Fault | None) -> None:
        """From the next request on; None lets everything pass. Requests that are under way are not touched: for them there is `drop`."""
        with self._lock:
            self._fault, self._left = fault, fault.times if fault else None

    @contextlib.contextmanager
    def disturbed(self, fault: Fault) -> Iterator[None]:
        self.set(fault)
        try:
            yield
        finally:
            self.set(None)

    def drop(self) -> None:
        """Reset every connection that is open now, running watches too."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Tells nobody, but wakes the thread that reads it, which closes it. SSLSocket's own shutdown would end the encryption first
                    socket.socket.shutdown(connection, socket.SHUT_RD)

    def seen(self, only: Which | None = None) -> list[Seen]:
        """The requests so far, in the order in which they came."""
        with self._lock:
            return [request for request in self._seen if only is None or only(request.method, request.path)]

    def count(self, only: Which | None = None) -> int:
        return len(self.seen(only))

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One client's connection, and one of ours to the server behind it."""
        with self._kept(connection), contextlib.suppress(Gone, Cut, OSError, ValueError), contextlib.ExitStack() as stack:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = stack.enter_context(self._kept(self._tls[0].wrap_socket(connection, server_side=True)))
            client, server = Stream(connection), None
            while head := read_head(client):
                if self._latency_s:
                    time.sleep(self._latency_s)
                fault = self._choose(head)
                if fault and fault.kind in ("answer", "stall", "reset"):
                    return self._refuse(fault, head, client)
                if server is None or server.waiting():  # nobody asked it anything: it can only have hung up
                    server = Stream(stack.enter_context(self._kept(self._connect())))
                if not exchange(head, client, server, fault.kind if fault else None, fault.seconds if fault else 0.0):
                    return None

    @contextlib.contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._upstream, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            connection = self._tls[1].wrap_socket(connection, server_hostname=self._upstream[0])
        connection.settimeout(None)
        return connection

    def _choose(self, head: Head) -> Fault | None:
        method, path = head.words[:2]
        with self._lock:
            fault = self._fault
            if fault and (self._left == 0 or (fault.only and not fault.only(method, path)) or self._random.random() >= fault.share):
                fault = None
            if fault and self._left is not None:
                self._left -= 1
            self._seen.append(Seen(method, path, fault.kind if fault else "pass"))
        return fault

    def _refuse(self, fault: Fault, head: Head, client: Stream) -> None:
        if fault.kind == "reset":
            return reset(client)
        if fault.kind == "stall":
            self._closed.wait(fault.seconds)
            return None
        if "expect" not in head.fields:  # else the body is not under way
            copy_body(head, client, lambda data: None)
        if self._tls:
            kind, body = "application/json", {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "fault proxy", "code": fault.status}
            content = json.dumps(body).encode()
        else:
            kind, content = "application/xml", f"<Error><Code>{fault.code}</Code><Message>fault proxy</Message></Error>".encode()
        status = f"HTTP/1.1 {fault.status} Fault\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        client.send(status.encode() + (b"" if head.words[0] == "HEAD" else content))
        return None
