"""As much of a Kubernetes client as the testbed itself needs: its own requests, as user `testbed`, in JSON."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from testbed.credentials import CA, token_of
from testbed.layout import API_SERVER, INTERNAL_KUBECONFIG
from testbed.shell import TestbedError


def call(method: str, path: str, body: object = None, *, kind: str = "application/json", timeout: float = 10) -> Any:
    """Raises TestbedError with the server's own message (its `code` is the HTTP status), OSError where it does not answer."""
    headers = {"Authorization": f"Bearer {token_of(INTERNAL_KUBECONFIG)}", "Content-Type": kind, "User-Agent": "testbed"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API_SERVER + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(CA)), timeout=timeout) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise Refused(error.code, f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:300]}") from error
    return json.loads(content) if content[:1] in (b"{", b"[") else content.decode()


class Refused(TestbedError):
    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def ready() -> bool:
    return bool(call("GET", "/readyz", timeout=2) == "ok")


def node_ready(name: str) -> bool:
    conditions = call("GET", f"/api/v1/nodes/{name}")["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
