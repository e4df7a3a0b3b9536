"""What `deploy/` describes, on the testbed: the documents under names of a test's own, and Dagster from the values of its chart.

Helm's chart is not here (no network at test time). `instance`, `container_context`, `code_location` and `control_plane` say in Python what its
templates make of the keys that deploy/helm/dagster.yaml sets. `for_testbed` changes only what a small machine without images must change.
"""

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import yaml

import testbed
from testbed.pods import mounts
from tests.cluster import manifests

DEPLOY = Path(__file__).parents[2] / "deploy"
Object = dict[str, Any]


class Kubectl:
    """kubectl in one namespace, as the testbed's administrator unless `kubeconfig` says otherwise."""

    def __init__(self, namespace: str, kubeconfig: Path | None = None):
        state = testbed.state()
        self.namespace, self._command = namespace, [str(state.kubectl), "--kubeconfig", str(kubeconfig or state.kubeconfig), "-n", namespace]

    def __call__(self, *arguments: str, stdin: object = None) -> str:
        """Its output. Raises Refused with what it says."""
        text = None if stdin is None else json.dumps(stdin)
        done = subprocess.run([*self._command, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def create(self, document: Object, *arguments: str) -> str:
        return self("create", "--validate=strict", "-f", "-", *arguments, stdin=document)

    def accepts(self, document: Object) -> None:
        """The API server, its admission and every webhook take the document; nothing is made of it."""
        self.create(document, "--dry-run=server")

    def items(self, kind: str, selector: str = "") -> list[Object]:
        return list(json.loads(self("get", kind, "-o", "json", *(["-l", selector] if selector else [])))["items"])


class Refused(Exception):
    """kubectl's own words."""


def documents(name: str, rename: Callable[[str], str] = lambda text: text) -> Iterator[Object]:
    """The documents of a file of deploy/, with every text changed by `rename`."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return rename(value) if isinstance(value, str) else value

    yield from (renamed(document) for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document)


def queues(namespace: str) -> Iterator[Object]:
    """deploy/queues.yaml; what is not in a namespace has the namespace in its name."""
    for document in documents("queues.yaml", lambda text: namespace if text == "robots" else text):
        if document["kind"] == "LocalQueue":
            document["spec"]["clusterQueue"] = f"{namespace}-{document['spec']['clusterQueue']}"
        else:
            document["metadata"]["name"] = f"{namespace}-{document['metadata']['name']}"
        for group in document.get("spec", {}).get("resourceGroups", []):
            for flavor in group["flavors"]:
                flavor["name"] = f"{namespace}-{flavor['name']}"
        yield document


def values() -> Object:
    """The values of Dagster's chart."""
    loaded: Object = yaml.safe_load((DEPLOY / "helm" / "dagster.yaml").read_text())
    return loaded


def for_testbed(original: Object, database: str) -> Object:
    """The values with what differs here: the host's interpreter instead of images, the testbed's PostgreSQL, no compute logs in S3."""
    made, state, found = copy.deepcopy(original), testbed.state(), mounts(repository=True)
    repository, tag = found.image.rsplit(":", 1)
    deployment = made["dagster-user-deployments"]["deployments"][0]
    for part in (deployment, made["dagsterDaemon"], made["dagsterWebserver"]):
        part["image"] |= {"repository": repository, "tag": tag}
        part["podSecurityContext"] = part["securityContext"] = {}
        part["envSecrets"] = [each for each in part["envSecrets"] if each["name"] != "compute-logs"]
        part["env"] = [*found.env, *part.get("env", [])]
        part["volumes"] = [*found.volumes, *part.get("volumes", [])]
        part["volumeMounts"] = [*found.volume_mounts, *part.get("volumeMounts", [])]
        part["resources"]["requests"]["memory"] = "300Mi"
    launcher = made["runLauncher"]["config"]["k8sRunLauncher"]
    del launcher["securityContext"], launcher["runK8sConfig"]["podSpecConfig"]["securityContext"]
    url = urlsplit(state.postgres)
    made["postgresql"] |= {"postgresqlHost": url.hostname, "postgresqlUsername": url.username, "postgresqlDatabase": database, "postgresqlParams": {}}
    made["postgresql"]["service"] = {"port": url.port}
    made["computeLogManager"] = {"type": "NoOpComputeLogManager", "config": {}}  # dagster-aws is in the image alone
    return made


def instance(made: Object, namespace: str) -> Object:
    """dagster.yaml. Templates: configmap-instance.yaml, helpers/instance/*."""
    daemon, database, launcher = made["dagsterDaemon"], made["postgresql"], made["runLauncher"]["config"]["k8sRunLauncher"]
    postgres = {
        "postgres_db": {
            "username": database["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": database["postgresqlHost"],
            "db_name": database["postgresqlDatabase"],
            "port": database["service"]["port"],
            "params": database["postgresqlParams"],
            "scheme": database["postgresqlScheme"],
        }
    }
    queue, monitoring, retries = daemon["runCoordinator"]["config"]["queuedRunCoordinator"], daemon["runMonitoring"], daemon["runRetries"]
    raw = launcher["runK8sConfig"]
    config = {
        "load_incluster_config": launcher["loadInclusterConfig"],
        "job_namespace": namespace,
        "image_pull_policy": launcher["imagePullPolicy"],
        "service_account_name": made["serviceAccount"]["name"],
        "dagster_home": made["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": made["global"]["postgresqlSecretName"],
        "run_k8s_config": {"pod_spec_config": raw["podSpecConfig"], "job_spec_config": raw["jobSpecConfig"]},
    }
    if "securityContext" in launcher:
        config["security_context"] = launcher["securityContext"]
    logs: Object = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    if made["computeLogManager"]["type"] == "S3ComputeLogManager":
        s3 = made["computeLogManager"]["config"]["s3ComputeLogManager"]
        told = {"bucket": s3["bucket"], "prefix": s3["prefix"], "region": s3["region"], "upload_interval": s3["uploadInterval"]}
        logs = {"module": "dagster_aws.s3.compute_log_manager", "class": "S3ComputeLogManager", "config": told}
    return {
        "scheduler": {"module": "dagster._core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": {"module": "dagster_postgres.schedule_storage", "class": "PostgresScheduleStorage", "config": postgres},
        "run_storage": {"module": "dagster_postgres.run_storage", "class": "PostgresRunStorage", "config": postgres},
        "event_log_storage": {"module": "dagster_postgres.event_log", "class": "PostgresEventLogStorage", "config": postgres},
        "run_launcher": {"module": "dagster_k8s", "class": made["runLauncher"]["type"], "config": config},
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": {"max_concurrent_runs": queue["maxConcurrentRuns"], "dequeue_interval_seconds": queue["dequeueIntervalSeconds"]},
        },
        "compute_logs": logs,
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "cancel_timeout_seconds": monitoring["cancelTimeoutSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "run_retries": {
            "enabled": retries["enabled"],
            "max_retries": retries["maxRetries"],
            "retry_on_asset_or_op_failure": retries["retryOnAssetOrOpFailure"],
        },
        **{part: {"use_threads": daemon[part]["useThreads"], "num_workers": daemon[part]["numWorkers"]} for part in ("sensors", "schedules")},
        "telemetry": {"enabled": made["telemetry"]["enabled"]},
        "retention": {part: {"purge_after_days": made["retention"][part]["purgeAfterDays"]} for part in ("sensor", "schedule")},
        **made["additionalInstanceConfig"],
    }


def container_context(made: Object, namespace: str) -> Object:
    """What run workers get from their code location (includeConfigInLaunchedRuns). Template: dagsterUserDeployments.k8sContainerContext."""
    deployment = made["dagster-user-deployments"]["deployments"][0]
    assert deployment["includeConfigInLaunchedRuns"]["enabled"]
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_secrets": [each["name"] for each in deployment["envSecrets"]],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "resources": deployment["resources"],
            "namespace": namespace,
            "service_account_name": made["dagster-user-deployments"]["serviceAccount"]["name"],
            "env": deployment["env"],
        }
    }


def code_location(made: Object, namespace: str) -> list[Object]:
    """Pod and Service of the code location. Template: deployment-user.yaml."""
    deployment = made["dagster-user-deployments"]["deployments"][0]
    image = f"{deployment['image']['repository']}:{deployment['image']['tag']}"
    port = deployment["port"]
    env = [
        {"name": "DAGSTER_CURRENT_IMAGE", "value": image},
        {"name": "DAGSTER_HOME", "value": made["global"]["dagsterHome"]},
        {"name": "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT", "value": json.dumps(container_context(made, namespace))},
        _password(made),
        *deployment["env"],
    ]
    container = {
        "name": "dagster-user-deployments",
        "args": ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", str(port), *deployment["dagsterApiGrpcArgs"]],
        "env": env,
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    account = made["dagster-user-deployments"]["serviceAccount"]["name"]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": deployment["name"]}}
    service["spec"] = {"selector": {"app": deployment["name"]}, "ports": [{"port": port}]}
    return [_pod(deployment["name"], account, deployment, [container | _common(deployment)]), service]


def control_plane(made: Object, namespace: str) -> list[Object]:
    """Webserver and daemon, here in one pod, with the documents that they read."""
    home, (location,) = made["global"]["dagsterHome"], made["dagster-user-deployments"]["deployments"]
    workspace = {"load_from": [{"grpc_server": {"host": location["name"], "port": location["port"], "location_name": location["name"]}}]}
    port = made["dagsterWebserver"]["service"]["port"]
    commands = {
        "webserver": (made["dagsterWebserver"], ["dagster-webserver", "-h", "0.0.0.0", "-p", str(port), "-w", "/dagster-workspace/workspace.yaml"]),
        "daemon": (made["dagsterDaemon"], ["dagster-daemon", "run", "-w", "/dagster-workspace/workspace.yaml"]),
    }
    read = [{"name": "instance", "mountPath": f"{home}/dagster.yaml", "subPath": "dagster.yaml"}, {"name": "workspace", "mountPath": "/dagster-workspace/"}]
    containers = []
    for name, (part, command) in commands.items():
        container = {"name": name, "command": command, "env": [{"name": "DAGSTER_HOME", "value": home}, _password(made), *part["env"]], **_common(part)}
        container["volumeMounts"] = [*container["volumeMounts"], *read]
        containers.append(container)
    containers[0]["readinessProbe"] = made["dagsterWebserver"]["readinessProbe"] | {"periodSeconds": 1, "failureThreshold": 60}
    pod = _pod("dagster", made["serviceAccount"]["name"], made["dagsterDaemon"], containers)
    pod["spec"]["volumes"] = [
        *pod["spec"]["volumes"],
        {"name": "instance", "configMap": {"name": "dagster-instance"}},
        {"name": "workspace", "configMap": {"name": "dagster-workspace-yaml"}},
    ]
    return [
        config_map("dagster-instance", {"dagster.yaml": yaml.safe_dump(instance(made, namespace))}),
        config_map("dagster-workspace-yaml", {"workspace.yaml": yaml.safe_dump(workspace)}),
        pod,
    ]


def settings(namespace: str, token: str) -> Object:
    """deploy/flywheel.yaml with the testbed's stores, below a prefix of the test's own."""
    (document,), state = list(documents("flywheel.yaml", lambda text: namespace if text == "robots" else text)), testbed.state()
    for name in ("store", "raw", "compute"):
        document[name] = {**document[name], "url": f"{document[name]['url']}/{token}", "endpoint": state.s3.endpoint, "region": state.s3.region}
    document["ingest"]["quiet_s"] = 0
    return document | {"deployment": token, "triggers": {"enabled": False}}


def settings_map(document: Object) -> Object:
    """The ConfigMap of docs/deploying.md: the settings, and the RayJobs that they name, as they run on the testbed."""
    jobs = {path.name: yaml.safe_dump(manifests.for_testbed(path)) for path in sorted((DEPLOY / "rayjobs").glob("*.yaml"))}
    return config_map("flywheel-settings", {"flywheel.yaml": yaml.safe_dump(document), **jobs})


def config_map(name: str, data: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, data: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def database(verb: str, name: str) -> None:
    """`verb`: CREATE or DROP, in the testbed's PostgreSQL."""
    connection = psycopg2.connect(testbed.state().postgres)
    connection.autocommit = True  # neither happens inside a transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute(f'{verb} DATABASE "{name}"' + (" WITH (FORCE)" if verb == "DROP" else ""))
    finally:
        connection.close()


def _password(made: Object) -> Object:
    source = {"secretKeyRef": {"name": made["global"]["postgresqlSecretName"], "key": "postgresql-password"}}
    return {"name": "DAGSTER_PG_PASSWORD", "valueFrom": source}


def _common(part: Object) -> Object:
    return {
        "image": f"{part['image']['repository']}:{part['image']['tag']}",
        "imagePullPolicy": part["image"]["pullPolicy"],
        "envFrom": [{"secretRef": each} for each in part["envSecrets"]],
        "resources": part["resources"],
        "securityContext": part["securityContext"],
        "volumeMounts": part["volumeMounts"],
    }


def _pod(name: str, account: str, part: Object, containers: list[Object]) -> Object:
    spec = {"serviceAccountName": account, "securityContext": part["podSecurityContext"], "volumes": part["volumes"], "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec | {"terminationGracePeriodSeconds": 5}}
