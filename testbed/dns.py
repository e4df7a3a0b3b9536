"""A DNS server for NAME.NAMESPACE.svc.cluster.local that asks the API server; stands in for CoreDNS. `python -m testbed.dns ADDRESS`

Headless Services (KubeRay's head Service is one) answer with their endpoints' addresses.
"""

import socket
import socketserver
import struct
import sys

from testbed import api
from testbed.shell import TestbedError

_NXDOMAIN, _NOERROR, _TYPE_A, _SECONDS = 3, 0, 1, 3


def addresses(name: str) -> list[str] | None:
    """None: there is no such name."""
    labels = name.lower().rstrip(".").split(".")
    if len(labels) != 5 or labels[2:] != ["svc", "cluster", "local"]:
        return None
    try:
        spec = api.call("GET", f"/api/v1/namespaces/{labels[1]}/services/{labels[0]}", timeout=2)["spec"]
        if spec.get("clusterIP") not in (None, "None"):
            return [spec["clusterIP"]]
        subsets = api.call("GET", f"/api/v1/namespaces/{labels[1]}/endpoints/{labels[0]}", timeout=2).get("subsets") or []
    except (TestbedError, OSError):
        return None
    groups = ["addresses"] + (["notReadyAddresses"] if spec.get("publishNotReadyAddresses") else [])
    return [entry["ip"] for subset in subsets for group in groups for entry in subset.get(group, [])]


def answer(query: bytes) -> bytes:
    position, labels = 12, []
    while query[position]:
        labels.append(query[position + 1 : position + 1 + query[position]].decode())
        position += query[position] + 1
    (kind,) = struct.unpack(">H", query[position + 1 : position + 3])
    # Resolvers ask for an IPv6 address too, each time; nothing here has one, and an answer from the API server costs it two requests
    found = addresses(".".join(labels)) if kind == _TYPE_A else []
    wanted = found or []
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", _TYPE_A, 1, _SECONDS, 4) + socket.inet_aton(address) for address in wanted)
    header = query[:2] + struct.pack(">HHHHH", 0x8180 | (_NXDOMAIN if found is None else _NOERROR), 1, len(wanted), 0, 0)
    return header + query[12 : position + 5] + records


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        query, server = self.request
        try:
            server.sendto(answer(query), self.client_address)
        except (IndexError, struct.error, UnicodeDecodeError, OSError) as error:
            print(error, file=sys.stderr, flush=True)


class _Server(socketserver.ThreadingUDPServer):  # a thread per query: one that waits for the API server must not hold the others up
    daemon_threads = True
    allow_reuse_address = True


if __name__ == "__main__":
    with _Server((sys.argv[1], 53), _Handler) as server:
        server.serve_forever()
