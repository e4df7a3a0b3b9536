"""One request through a proxy to the server and its answer back, with the faults that need the server."""

import socket
import struct
import time

from testbed.streams import Gone, Head, Stream, copy_body, read_head, wait


def exchange(head: Head, client: Stream, server: Stream, kind: str | None, seconds: float = 0.0) -> bool:
    """One request, whose head is read, and its answer; `kind` and `seconds` are a fault's (proxy.py). Says whether the connection is good for another."""
    server.send(head.raw)
    told: Head | None = None
    if "expect" in head.fields:
        told = _answer_to_expect(client, server)
    whole = True
    if told is None:
        try:
            copy_body(head, client, server.send, cut=kind == "cut_upload", flip=kind == "flip_upload")
        except Gone:
            if not server.waiting():
                raise
            whole = False  # the server said no before it had all of it: that is the answer
        told = read_head(server)
        while told and told.words[1] == "100":  # late: the client has long sent its body
            told = read_head(server)
    else:
        whole = False
    if told is None:
        return False
    if kind == "lose_answer":
        reset(client)
        return False
    status = int(told.words[1])
    empty = head.words[0] == "HEAD" or status in (204, 304) or told.length == 0
    if kind == "cut" and empty:
        return False
    if kind == "shorten" and told.length and not empty:
        _shortened(told, client, server)
        return False
    client.send(told.raw)
    if status == 101:
        _tunnel(client, server)
        return False
    if empty:
        return whole and not head.last and not told.last
    slow = seconds if kind == "drip" else 0.0
    _pass_on(told, client, server, cut=kind == "cut", flip=kind == "flip", slow=slow)
    return whole and not head.last and not told.last and (told.chunked or told.length is not None)


def _answer_to_expect(client: Stream, server: Stream) -> Head | None:
    """None: the server said `100 Continue`, and the client knows."""
    told = read_head(server)
    if told and told.words[1] == "100":
        client.send(told.raw)
        return None
    if told is None:
        raise Gone
    return told


def _shortened(told: Head, client: Stream, server: Stream) -> None:
    """A whole answer, of which the second half was never there: its length says so, too."""
    assert told.length is not None
    half = told.length // 2
    lines = [line for line in told.raw.decode("latin-1").split("\r\n") if not line.lower().startswith("content-length:")]
    client.send("\r\n".join([lines[0], f"Content-Length: {half}", *lines[1:]]).encode("latin-1"))
    while half:
        data = server.some(half)
        if not data:
            raise Gone
        client.send(data)
        half -= len(data)


def _pass_on(told: Head, client: Stream, server: Stream, *, cut: bool, flip: bool, slow: float) -> None:
    """The answer's body. A client that goes away in a watch is noticed, though nothing is sent to it: it says nothing while it listens.

    `slow`: seconds before each piece.
    """

    class Watched(Stream):
        def some(self, most: int) -> bytes:
            self._look()
            return server.some(most)

        def until(self, mark: bytes) -> bytes:
            self._look()
            return server.until(mark)

        def _look(self) -> None:
            if not server.has_data() and server not in wait([server, client], None):
                raise Gone

    def send(data: bytes) -> None:
        if slow:
            time.sleep(slow)
        client.send(data)

    copy_body(told, Watched(server.socket), send, to_the_end=True, cut=cut, flip=flip)


def _tunnel(client: Stream, server: Stream) -> None:
    """After `101 Switching Protocols` (exec, attach, port-forward), bytes in both directions until one side ends."""
    while True:
        pair = [stream for stream in (client, server) if stream.has_data()] or wait([client, server], None)
        for stream in pair:
            data = stream.some(65536)
            if not data:
                return
            (server if stream is client else client).send(data)


def reset(stream: Stream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
