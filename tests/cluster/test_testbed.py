"""The testbed is what it says it is: a cluster, operators, object stores and an audit log that answer, and faults that happen.

Runs against the testbed that is up (`make cluster-up`), and changes nothing outside a namespace of its own and its own objects.
"""

import dataclasses
import http.client
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from kubernetes import client, config
from kubernetes.stream import stream

import testbed
from testbed import api, audit, faults, pods, proxy, s3
from testbed.proxy import Fault
from testbed.service_accounts import service_account_kubeconfig


@pytest.fixture(scope="module")
def bed() -> testbed.State:
    try:
        state = testbed.state()
    except (testbed.TestbedError, PermissionError) as error:
        pytest.skip(str(error))
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).resolve() != state.kubeconfig.resolve():
        pytest.skip("KUBECONFIG names another cluster, and this is about the testbed")
    return state


@pytest.fixture(scope="module")
def kube(bed: testbed.State) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(bed.kubeconfig)) as made:
        yield made


@pytest.fixture(scope="module")
def namespace(kube: client.ApiClient) -> Iterator[str]:
    name = f"testbed-{uuid.uuid4().hex[:8]}"
    core = client.CoreV1Api(kube)
    core.create_namespace({"metadata": {"name": name}})
    eventually(lambda: core.list_namespaced_service_account(name).items)  # no pod is admitted before its account is there
    yield name
    core.delete_namespace(name)


def eventually(check: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.1)
    return found


def test_the_node_is_ready(kube: client.ApiClient) -> None:
    node = client.CoreV1Api(kube).read_node("node-1")
    assert "True" in [condition.status for condition in node.status.conditions if condition.type == "Ready"]
    assert int(node.status.allocatable["cpu"]) >= 1


def rayjob(name: str, **labels: str) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "ray-head", "image": "none"}]}}
    cluster = {"rayVersion": "2.60.0", "headGroupSpec": {"rayStartParams": {}, "template": template}}
    spec = {"entrypoint": "true", "suspend": True, "shutdownAfterJobFinishes": True, "rayClusterSpec": cluster}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name, "labels": labels}, "spec": spec}


def test_both_operators_answer_and_the_audit_log_knows_the_rayjob(kube: client.ApiClient, namespace: str) -> None:
    since = audit.now()
    objects = client.CustomObjectsApi(kube)
    jobs = ("ray.io", "v1", namespace, "rayjobs")
    made = [objects.create_namespaced_custom_object(*jobs, rayjob("again", **{"kueue.x-k8s.io/queue-name": "nowhere"}))]
    with pytest.raises(client.ApiException):  # the name is taken: refused, and not counted
        objects.create_namespaced_custom_object(*jobs, rayjob("again"))

    def suspended() -> bool:
        return bool(objects.get_namespaced_custom_object(*jobs, "again").get("status", {}).get("jobDeploymentStatus") == "Suspended")

    def workload() -> bool:
        return bool(objects.list_namespaced_custom_object("kueue.x-k8s.io", "v1beta1", namespace, "workloads")["items"])

    eventually(suspended)  # KubeRay
    eventually(workload)  # Kueue
    objects.delete_namespaced_custom_object(*jobs, "again")
    made.append(eventually(lambda: _create(objects, jobs)))
    uids = [job["metadata"]["uid"] for job in made]
    eventually(lambda: audit.created_rayjobs(since, namespace) == [("again", uid) for uid in uids], 5)
    refused = [request for request in audit.requests(since, user="admin") if (request.resource, request.namespace, request.code) == ("rayjobs", namespace, 409)]
    assert refused and refused[0].verb == "create" and refused[0].user_agent.startswith("OpenAPI-Generator")
    assert not audit.requests(since, user="nobody") and audit.requests(since, user_agent="kuberay-operator")


def _create(objects: client.CustomObjectsApi, jobs: tuple[str, ...]) -> Any:
    """None while the one before is still being deleted."""
    try:
        return objects.create_namespaced_custom_object(*jobs, rayjob("again"))
    except client.ApiException as error:
        assert error.status == 409
        return None


def test_a_pod_has_python_names_and_stores_and_exec_goes_through_the_proxy(bed: testbed.State, kube: client.ApiClient, namespace: str) -> None:
    script = (
        "import socket, sys, time, urllib.request, obstore\n"
        "print(sys.prefix, socket.gethostbyname('kubernetes.default.svc.cluster.local'))\n"
        f"print(urllib.request.urlopen('{bed.s3.endpoint}/healthy').status, flush=True)\n"
        "time.sleep(600)"
    )
    container = pods.mounts().container(name="main", command=["python", "-c", script])
    core = client.CoreV1Api(kube)
    core.create_namespaced_pod(
        namespace, {"metadata": {"name": "probe"}, "spec": {"containers": [container], "volumes": pods.mounts().volumes, "terminationGracePeriodSeconds": 0}}
    )
    eventually(lambda: core.read_namespaced_pod("probe", namespace).status.phase == "Running")

    def said() -> list[str]:  # without _preload_content, this client gives the bytes' repr
        return core.read_namespaced_pod_log("probe", namespace, _preload_content=False).data.decode().split()

    eventually(lambda: len(said()) == 3)
    assert said() == [sys.prefix, "10.96.0.1", "200"]
    with proxy.before_api_server() as front, config.new_client_from_config(str(proxy.kubeconfig(front))) as through:
        command = ["sh", "-c", "echo out; echo $((6 * 7))"]
        told = stream(client.CoreV1Api(through).connect_get_namespaced_pod_exec, "probe", namespace, command=command, stdout=True, stderr=True)
        assert told.split() == ["out", "42"]
        assert front.count(lambda method, path: path.startswith(f"/api/v1/namespaces/{namespace}/pods/probe/exec")) == 1
    core.delete_namespaced_pod("probe", namespace)


def session(kubeconfig: Path) -> requests.Session:
    """A plain client that never tries twice."""
    document = yaml.safe_load(kubeconfig.read_text())
    made = requests.Session()
    made.trust_env = False  # REQUESTS_CA_BUNDLE would outrank `verify`
    made.headers["Authorization"] = f"Bearer {document['users'][0]['user']['token']}"
    made.verify = str(testbed.state().certificate_authority)
    return made


@pytest.mark.parametrize(("token", "status"), [("valid", 403), ("expired", 401), ("wrong", 401)])
def test_service_accounts_have_what_a_role_gives_them(bed: testbed.State, namespace: str, token: Any, status: int) -> None:
    asked = session(service_account_kubeconfig(namespace, "default", token)).get(f"{bed.api_server}/api/v1/namespaces/{namespace}/secrets", timeout=10)
    assert asked.status_code == status


@pytest.mark.parametrize("name", ["s3", "s3_elsewhere"])
def test_every_account_reads_and_writes_every_bucket_and_no_other_does(bed: testbed.State, name: str) -> None:
    server: testbed.S3Server = getattr(bed, name)
    key, other = f"test/{uuid.uuid4().hex}", bed.s3_elsewhere if name == "s3" else bed.s3
    for bucket in server.buckets:
        for writer in server.accounts.values():
            s3.client(server, writer).put_object(Bucket=bucket, Key=key, Body=b"x")
            for reader in server.accounts.values():
                mine = s3.client(server, reader)
                assert mine.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
                assert key in [found["Key"] for found in mine.list_objects_v2(Bucket=bucket, Prefix="test/")["Contents"]]
            s3.client(server, writer).delete_object(Bucket=bucket, Key=key)
    wrong = dataclasses.replace(server.accounts["jobs"], secret_key="not the right one")
    for account, code in ((wrong, "SignatureDoesNotMatch"), (other.accounts["jobs"], "InvalidAccessKeyId")):
        with pytest.raises(ClientError, match=code):
            s3.client(server, account).list_objects_v2(Bucket="flywheel-compute")


@pytest.fixture
def front(bed: testbed.State) -> Iterator[proxy.FaultProxy]:
    with proxy.before_api_server() as made:
        yield made


def test_the_proxy_passes_requests_on_and_counts_them(front: proxy.FaultProxy, namespace: str) -> None:
    admin = session(proxy.kubeconfig(front))
    maps = f"{front.url}/api/v1/namespaces/{namespace}/configmaps"
    large = {"data": {"text": "x" * 500_000}}
    assert admin.post(maps, json={"metadata": {"name": "large"}, **large}, timeout=10).status_code == 201
    assert admin.get(f"{maps}/large", timeout=10).json()["data"] == large["data"]
    assert admin.delete(f"{maps}/large", timeout=10).status_code == 200
    assert [seen.method for seen in front.seen()] == ["POST", "GET", "DELETE"] and {seen.outcome for seen in front.seen()} == {"pass"}


def test_a_watch_is_passed_on_as_it_comes_and_can_be_dropped(front: proxy.FaultProxy, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    admin = session(proxy.kubeconfig(front))
    since = api.call("GET", maps)["metadata"]["resourceVersion"]  # as a client watches: from a state that was told, not from whatever the cache holds
    with admin.get(f"{front.url}{maps}?watch=true&fieldSelector=metadata.name=seen&resourceVersion={since}", stream=True, timeout=10) as watching:
        lines = watching.iter_lines()
        for number in range(3):
            before = time.monotonic()
            api.call("POST" if number == 0 else "PUT", maps + ("" if number == 0 else "/seen"), {"metadata": {"name": "seen"}, "data": {"number": str(number)}})
            event = json.loads(next(lines))
            assert event["object"].get("data") == {"number": str(number)} and time.monotonic() - before < 1, event
        front.drop()
        with pytest.raises((requests.exceptions.RequestException, StopIteration)):
            next(lines)


def test_a_fault_takes_its_share_and_its_predicate_and_its_number(front: proxy.FaultProxy) -> None:
    def ask(path: str = "/version") -> int:
        return requests.get(front.url + path, timeout=5, verify=str(testbed.state().certificate_authority), headers=headers).status_code

    headers = session(proxy.kubeconfig(front)).headers
    with front.disturbed(Fault("answer", status=503, share=0.5)):
        assert 5 <= [ask() for _ in range(30)].count(503) <= 25
    with front.disturbed(Fault("answer", status=401, only=lambda method, path: path == "/readyz")):
        assert [ask("/readyz"), ask("/version")] == [401, 200]
    with front.disturbed(Fault("answer", status=429, times=1)):
        assert [ask(), ask()] == [429, 200]
    assert ask() == 200


def test_the_api_server_does_what_it_was_asked_though_the_answer_is_lost(front: proxy.FaultProxy, namespace: str) -> None:
    admin, maps = session(proxy.kubeconfig(front)), f"/api/v1/namespaces/{namespace}/configmaps"
    for kind, arrives in (("reset", False), ("lose_answer", True), ("cut", True), ("cut_upload", False)):
        front.set(Fault(kind))  # type: ignore[arg-type]
        with pytest.raises(requests.exceptions.RequestException):
            admin.post(front.url + maps, json={"metadata": {"name": kind.replace("_", "-")}}, timeout=5)
        names = [item["metadata"]["name"] for item in api.call("GET", maps)["items"]]
        assert (kind.replace("_", "-") in names) == arrives, kind


def test_a_stalled_request_is_accepted_and_not_answered(front: proxy.FaultProxy) -> None:
    front.set(Fault("stall", seconds=30, times=1))
    admin = session(proxy.kubeconfig(front))
    before = time.monotonic()
    with pytest.raises(requests.exceptions.ReadTimeout):
        admin.get(f"{front.url}/version", timeout=0.5)
    assert 0.4 < time.monotonic() - before < 3
    front.set(Fault("stall", seconds=0.5, times=1))
    with pytest.raises(requests.exceptions.ConnectionError):
        admin.get(f"{front.url}/version", timeout=5)
    assert admin.get(f"{front.url}/version", timeout=5).status_code == 200


def test_the_proxy_before_s3(bed: testbed.State) -> None:
    account, bucket, key = bed.s3.accounts["jobs"], "flywheel-store", f"test/{uuid.uuid4().hex}"
    body = os.urandom(3_000_000)
    direct = s3.client(bed.s3, account)
    with proxy.before_s3(bed.s3) as front:
        through = s3.client(dataclasses.replace(bed.s3, endpoint=front.url), account)
        through.put_object(Bucket=bucket, Key=key, Body=body)
        assert through.get_object(Bucket=bucket, Key=key)["Body"].read() == body
        with front.disturbed(Fault("answer", status=503)), pytest.raises(ClientError) as refused:
            through.put_object(Bucket=bucket, Key=key, Body=body)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        for kind in ("reset", "lose_answer"):
            with front.disturbed(Fault(kind)), pytest.raises(BotoCoreError):  # type: ignore[arg-type]
                through.head_object(Bucket=bucket, Key=key)
        with front.disturbed(Fault("cut")), pytest.raises((BotoCoreError, http.client.IncompleteRead)):
            through.get_object(Bucket=bucket, Key=key)["Body"].read()
        with front.disturbed(Fault("cut_upload")), pytest.raises(BotoCoreError):
            through.put_object(Bucket=bucket, Key=f"{key}.half", Body=body)
        assert [found["Key"] for found in direct.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]] == [key]  # the half never shows
        assert front.count(lambda method, path: method == "PUT") == 3
    direct.delete_object(Bucket=bucket, Key=key)


@pytest.mark.exclusive
def test_processes_are_killed_frozen_and_started_again(bed: testbed.State) -> None:
    host, port = bed.s3_elsewhere.endpoint.removeprefix("http://").split(":")
    before = faults.living("s3-elsewhere")
    with faults.without("s3-elsewhere"), pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
    assert s3.ready("s3-elsewhere") and faults.living("s3-elsewhere") not in (None, before)
    with faults.frozen("s3-elsewhere"), pytest.raises(TimeoutError):
        s3.ready("s3-elsewhere")
    assert s3.ready("s3-elsewhere")
    faults.restart("kueue")
    with pytest.raises(testbed.TestbedError, match="no process nothing of the testbed lives, but containerd-1"):
        faults.kill("nothing")
