"""The overlay: what the protocol needs of the user's RayJob, and nothing else changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.launching.kuberay.manifest import rayjob, read_manifest
from orchestration.launching.work import Attempt, Resources
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import StoreConfig

STORE = StoreConfig(url="s3://flywheel-store", endpoint="http://store:7070", region="us-east-1", credentials="STORE")
MANIFEST = """
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: theirs, labels: {team: robots}}
spec:
  ttlSecondsAfterFinished: 7
  somethingOfALaterVersion: {kept: true}
  runtimeEnvYAML: "env_vars: {A: b}"
  rayClusterSpec:
    headGroupSpec:
      rayStartParams: {num-cpus: "0"}
      template: {spec: {containers: [{name: head, image: ours, env: [{name: RAY_DEDUP_LOGS, value: "1"}], resources: {limits: {memory: 1Gi}}}]}}
    workerGroupSpecs:
      - groupName: cpu
        template:
          spec:
            terminationGracePeriodSeconds: 60
            containers: [{name: worker, image: ours, resources: {limits: {memory: 4Gi}, requests: {memory: 1Gi, cpu: 1}}}]
"""


def attempt(memory: int | None = None) -> Attempt:
    return Attempt(
        base="measurements-20260105-0123456789ab",
        number=2,
        deployment="demo",
        asset="measurements",
        days=("2026-01-05", "2026-01-06"),
        module="ray_jobs.curation",
        config={"deadline_s": 1000.0},
        code="c" * 64,
        generation="20260105T000000.000000Z-abcd",
        root_run="root",
        run_id="run",
        series="run",
        resources=Resources(memory=memory),
    )


def made(**options: Any) -> dict[str, Any]:
    return rayjob(yaml.safe_load(MANIFEST), attempt(options.pop("memory", None)), STORE, "s3://flywheel-store/code/x.zip", **options)


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"]["containers"][0] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


def test_what_the_manifest_says_is_kept() -> None:
    job = made()
    assert job["spec"]["ttlSecondsAfterFinished"] == 7 and job["spec"]["somethingOfALaterVersion"] == {"kept": True}
    assert job["metadata"]["labels"]["team"] == "robots"
    head, worker = job["spec"]["rayClusterSpec"]["headGroupSpec"], job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] == 60 and head["template"]["spec"]["terminationGracePeriodSeconds"] == 3
    assert [each["value"] for each in containers(job)[0]["env"] if each["name"] == "RAY_DEDUP_LOGS"] == ["1"]
    assert json.loads(job["spec"]["runtimeEnvYAML"]) == {"env_vars": {"A": "b"}, "working_dir": "s3://flywheel-store/code/x.zip"}


def test_the_protocol_gets_what_it_needs() -> None:
    job = made(queue="daily", priority="production", secret="stores")
    meta, spec = job["metadata"], job["spec"]
    assert meta["name"] == "measurements-20260105-0123456789ab-a2" and len(meta["name"]) <= 47
    assert meta["annotations"]["robot-flywheel/spec"] == attempt().spec_hash and meta["annotations"]["robot-flywheel/code"] == "c" * 64
    assert meta["annotations"]["robot-flywheel/days"] == "2026-01-05,2026-01-06"
    assert meta["labels"]["kueue.x-k8s.io/queue-name"] == "daily" and meta["labels"]["kueue.x-k8s.io/priority-class"] == "production"
    assert all(len(value) <= 63 for value in meta["labels"].values())
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"], spec["submissionMode"]) == (0, True, "HTTPMode")
    assert spec["activeDeadlineSeconds"] == 1600, "behind the driver's own 1000 s"
    assert spec["entrypoint"].startswith("python -m ray_jobs.guard ray_jobs.curation --attempt attempts/measurements-20260105-0123456789ab/a2/attempt.json")
    for container in containers(job):
        assert container["envFrom"] == [{"secretRef": {"name": "stores"}}]
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        env = {each["name"]: each.get("value") or each["valueFrom"] for each in container["env"]}
        assert env["AWS_ENDPOINT_URL"] == "http://store:7070"
        assert env["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "stores", "key": "STORE_SECRET_ACCESS_KEY"}}


def test_a_worker_waits_for_its_head_and_both_say_soon_that_they_are_ready() -> None:
    manifest = yaml.safe_load(MANIFEST)
    cluster = manifest["spec"]["rayClusterSpec"]
    cluster["headGroupSpec"]["rayStartParams"] |= {"port": "7000", "dashboard-agent-listen-port": "7001"}
    own, secure = {"name": "theirs", "image": "theirs"}, {"allowPrivilegeEscalation": False}
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    worker["initContainers"] = [own]
    worker["containers"][0] |= {"securityContext": secure, "readinessProbe": {"periodSeconds": 60}}
    job = rayjob(manifest, attempt(), STORE, "s3://b/code.zip", secret="stores")
    pods = [group["template"]["spec"] for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"], job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0])]
    assert "initContainers" not in pods[0] and pods[1]["initContainers"][0] == own
    waits = pods[1]["initContainers"][1]
    assert waits["image"] == "ours" and waits["securityContext"] == secure and "envFrom" not in waits
    assert "/dev/tcp/$FQ_RAY_IP/7000" in waits["command"][-1]
    assert pods[0]["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 7001}
    assert pods[1]["containers"][0]["readinessProbe"] == {"periodSeconds": 60}, "what the manifest says"
    worker["initContainers"] = None  # a key with nothing behind it
    again = rayjob(manifest, attempt(), STORE, "s3://b/code.zip")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert [each["name"] for each in again["initContainers"]] == ["head-is-up"]


def test_an_autoscaling_job_is_elastic_in_a_queue_and_nowhere_else() -> None:
    manifest = yaml.safe_load(MANIFEST)
    key = "kueue.x-k8s.io/elastic-job"
    assert key not in rayjob(manifest, attempt(), STORE, "s3://b/code.zip", queue="daily")["metadata"]["annotations"]
    manifest["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] = True
    assert rayjob(manifest, attempt(), STORE, "s3://b/code.zip", queue="daily")["metadata"]["annotations"][key] == "true"
    assert key not in rayjob(manifest, attempt(), STORE, "s3://b/code.zip")["metadata"]["annotations"]


def test_more_memory_raises_what_is_below_it_and_lowers_nothing() -> None:
    limits = [container["resources"]["limits"]["memory"] for container in containers(made(memory=2 * 2**30))]
    assert limits == [str(2 * 2**30), "4Gi"]


def test_the_same_attempt_gives_the_same_job_and_leaves_the_manifest_alone() -> None:
    manifest = yaml.safe_load(MANIFEST)
    first = rayjob(manifest, attempt(), STORE, "s3://b/code.zip", secret="stores")
    assert manifest == yaml.safe_load(MANIFEST)
    assert first == rayjob(manifest, attempt(), STORE, "s3://b/code.zip", secret="stores")


@pytest.mark.parametrize(("text", "said"), [("kind: Pod", "is not one RayJob"), ("a: [", "is not YAML"), (None, "cannot read")])
def test_a_bad_manifest_is_told_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said) as raised:
        read_manifest(path)
    assert "\n" not in str(raised.value)
