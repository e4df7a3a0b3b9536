"""Kubeconfigs of service accounts, to see what a role allows, and two that must be refused."""

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any, Literal

from testbed import api
from testbed.credentials import ACCOUNT_KEY, write_kubeconfig
from testbed.layout import API_SERVER, RUN
from testbed.shell import run

_SECONDS = 6 * 3600


def service_account_kubeconfig(
    namespace: str, name: str, token: Literal["valid", "expired", "wrong"] = "valid", *, server: str = API_SERVER, seconds: int = _SECONDS
) -> Path:
    """A kubeconfig with a token of an account that exists; `server` may be a fault proxy. An expired token is right in all but its time."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
    granted = api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", asked)["status"]["token"]
    text = {"valid": lambda: granted, "expired": lambda: _expired(granted), "wrong": lambda: secrets.token_hex(32)}[token]()
    path = RUN / "accounts" / f"{namespace}-{name}-{token}-{secrets.token_hex(4)}.kubeconfig"
    return write_kubeconfig(path, text, user=f"{namespace}/{name}", server=server, namespace=namespace)


def _expired(token: str) -> str:
    """The same claims an hour too old, signed by the cluster's own key: the server refuses it for its time alone."""
    header, claims, _ = token.split(".")
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    now = int(time.time())
    content.update(iat=now - 7200, nbf=now - 7200, exp=now - 3600)
    unsigned = f"{header}.{_encoded(json.dumps(content).encode())}"
    signature = run("sh", "-c", 'openssl dgst -sha256 -sign "$0" | base64 -w0', ACCOUNT_KEY, input=unsigned)
    return f"{unsigned}.{_encoded(base64.b64decode(signature))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
