"""As much of HTTP/1.1 as a proxy needs that passes bytes on as they come: where a head ends, and where a body does."""

import select
import socket
import ssl
from collections.abc import Callable

_PIECE = 65536
_LARGEST_HEAD = 1 << 20


class Gone(Exception):
    """One of the two sides is not there any more."""


class Cut(Exception):
    """The middle of the body is reached, where it was to be cut."""


class Stream:
    """A connection, with what was read of it and not used yet."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self._buffer = bytearray()

    def some(self, most: int) -> bytes:
        """What there is, as soon as there is anything; nothing at its end."""
        if not self._buffer:
            self._receive()
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        return data

    def until(self, mark: bytes) -> bytes:
        """With the mark; nothing where the connection ends before it."""
        start = 0
        while True:
            end = self._buffer.find(mark, start)
            if end >= 0:
                data = bytes(self._buffer[: end + len(mark)])
                del self._buffer[: end + len(mark)]
                return data
            start = max(0, len(self._buffer) - len(mark))
            if len(self._buffer) > _LARGEST_HEAD or not self._receive():
                return b""

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (OSError, ValueError) as error:
            raise Gone from error

    def has_data(self) -> bool:
        return bool(self._buffer) or (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0)

    def waiting(self) -> bool:
        """Whether something can be read now: data, or the end."""
        return self.has_data() or self in wait([self], 0)

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(_PIECE)
        except (OSError, ValueError) as error:
            raise Gone from error
        self._buffer += data
        return bool(data)


def wait(streams: list[Stream], milliseconds: int | None) -> list[Stream]:
    """Those that can be read."""
    poll = select.poll()
    numbers = {}
    for stream in streams:
        number = stream.socket.fileno()
        if number < 0:
            raise Gone
        numbers[number] = stream
        poll.register(number, select.POLLIN)
    return [numbers[number] for number, _ in poll.poll(milliseconds)]


class Head:
    """The first lines of a request or an answer, as they came."""

    def __init__(self, raw: bytes):
        self.raw = raw
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.words = first.split(" ", 2)
        self.fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.fields[name.strip().lower()] = value.strip()

    @property
    def chunked(self) -> bool:
        return "chunked" in self.fields.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        return int(self.fields["content-length"]) if "content-length" in self.fields else None

    @property
    def last(self) -> bool:
        """Whether nobody says anything after it on this connection."""
        return "close" in self.fields.get("connection", "").lower() or self.raw.split(b"\r\n", 1)[0].find(b"HTTP/1.0") >= 0


def read_head(stream: Stream) -> Head | None:
    raw = stream.until(b"\r\n\r\n")
    return Head(raw) if raw else None


def flipping(send: Callable[[bytes], None], position: int) -> Callable[[bytes], None]:
    """`send`, by which one bit of the byte at that position of the body is flipped."""
    sent = 0

    def flipped(data: bytes) -> None:
        nonlocal sent
        at = position - sent
        sent += len(data)
        send(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data)

    return flipped


def copy_body(head: Head, source: Stream, send: Callable[[bytes], None], *, to_the_end: bool = False, cut: bool = False, flip: bool = False) -> None:
    """Each piece is sent on as it comes. With `cut`, half of it (half of the first chunk, where the length is not told), then Cut.

    With `flip`, one bit in its middle is another, where its length is told.
    """
    if flip and head.length:
        send = flipping(send, head.length // 2)
    if head.chunked:
        size = -1
        while size:
            line = source.until(b"\r\n")
            if not line:
                raise Gone
            size = int(line.split(b";")[0], 16)
            send(line)
            if cut:
                _copy(source, send, size // 2)
                raise Cut
            _copy(source, send, size)
            end = source.until(b"\r\n")  # of the chunk; after the last one, of a trailer
            while not size and len(end) > 2:
                send(end)
                end = source.until(b"\r\n")
            send(end)
    elif head.length is not None:
        _copy(source, send, head.length // 2 if cut else head.length)
        if cut:
            raise Cut
    elif to_the_end:
        while data := source.some(_PIECE):
            send(data)


def _copy(source: Stream, send: Callable[[bytes], None], length: int) -> None:
    while length:
        data = source.some(min(length, _PIECE))
        if not data:
            raise Gone
        send(data)
        length -= len(data)
