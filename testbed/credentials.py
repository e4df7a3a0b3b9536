"""Certificates, tokens and kubeconfigs. All are made anew at each start of the cluster, and go with it."""

import base64
import json
import secrets
from pathlib import Path

from testbed.layout import API_SERVER, API_SERVICE, BRIDGE_ADDRESS, INTERNAL_KUBECONFIG, KUBECONFIG, PKI
from testbed.shell import run, write_secret

_SERVICE = "kubernetes.default.svc"
_NAMES = ["DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default", f"DNS:{_SERVICE}", f"DNS:{_SERVICE}.cluster.local"]
_ADDRESSES = ["IP:127.0.0.1", f"IP:{BRIDGE_ADDRESS}", f"IP:{API_SERVICE}"]
_EXTENSIONS = f"subjectAltName={','.join([*_NAMES, *_ADDRESSES])}\nextendedKeyUsage=serverAuth,clientAuth\nauthorityKeyIdentifier=keyid\n"

CA, CERTIFICATE, KEY = PKI / "ca.crt", PKI / "tls.crt", PKI / "tls.key"
ACCOUNT_KEY, ACCOUNT_PUBLIC_KEY = PKI / "sa.key", PKI / "sa.pub"  # sign and check service account tokens
TOKENS = PKI / "tokens.csv"


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def write() -> None:
    """One authority; one certificate for the API server, its client side towards kubelets, Kueue's webhooks and fault proxies; two tokens."""
    if TOKENS.exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)

    def openssl(*arguments: str) -> None:
        run("openssl", *arguments, cwd=PKI)

    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    authority = ("-subj", "/CN=testbed", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", *authority)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kube-apiserver", "-keyout", "tls.key", "-out", "tls.csr")
    (PKI / "tls.ext").write_text(_EXTENSIONS)
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "365", "-extfile", "tls.ext", "-out", "tls.crt")
    openssl("x509", "-req", "-in", "tls.csr", *signed)
    tokens = {"admin": secrets.token_hex(16), "testbed": secrets.token_hex(16)}
    write_kubeconfig(KUBECONFIG, tokens["admin"], user="admin")
    write_kubeconfig(INTERNAL_KUBECONFIG, tokens["testbed"], user="testbed")
    write_secret(TOKENS, "".join(f'{token},{user},{user},"system:masters"\n' for user, token in tokens.items()))


def write_kubeconfig(path: Path, token: str, *, user: str, server: str = API_SERVER, namespace: str = "default") -> Path:
    """A kubeconfig with one context, `testbed`. It is JSON, which is YAML too."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": encoded(CA)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user, "namespace": namespace}}],
    }
    write_secret(path, json.dumps(document, indent=1))
    return path


def token_of(kubeconfig: Path) -> str:
    return str(json.loads(kubeconfig.read_text())["users"][0]["user"]["token"])
