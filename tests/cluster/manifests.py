"""The manifests of deploy/rayjobs as they run on the testbed: the same documents with this machine's interpreter mounted and smaller sizes."""

from pathlib import Path
from typing import Any

import yaml

from testbed.pods import mounts

# On two cores a worker that no task has asked for yet costs a second that another pod wants
ENV = {"name": "RAY_prestart_worker_first_driver", "value": "false"}
MEMORY = {"ray-head": "2500Mi", "ray-worker": "1800Mi", "autoscaler": "700Mi"}


def for_testbed(path: Path) -> dict[str, Any]:
    """A RayJob of deploy/rayjobs for two cores: no GPU is asked of Kubernetes, what Ray is told of GPUs stays."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    cluster = document["spec"]["rayClusterSpec"]
    found = mounts()
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        pod = group["template"]["spec"]
        pod["securityContext"] = {}
        pod["tolerations"] = []
        pod["volumes"] = [*pod.get("volumes", []), *found.volumes]
        for container in pod["containers"]:
            _small(container, found)
        started = group["rayStartParams"]
        if int(started["num-cpus"]):
            started["num-cpus"] = "2" if group is cluster["headGroupSpec"] else "1"
    if not cluster.get("enableInTreeAutoscaling"):
        # It tells the dashboard which nodes are wanted, for up to three seconds of a crowded machine. Beside an autoscaler KubeRay leaves it out too
        cluster["headGroupSpec"]["rayStartParams"]["no-monitor"] = "true"
    if "autoscalerOptions" in cluster:
        options = cluster["autoscalerOptions"]
        options["idleTimeoutSeconds"] = 10
        options |= {
            "image": found.image,
            "imagePullPolicy": "IfNotPresent",
            "env": found.env,
            "volumeMounts": [*options.get("volumeMounts", []), *found.volume_mounts],
        }
        options["resources"] = {"requests": {"cpu": "50m", "memory": MEMORY["autoscaler"]}, "limits": {"memory": MEMORY["autoscaler"]}}
        options.pop("securityContext", None)
    return document


def _small(container: dict[str, Any], found: Any) -> None:
    more = {"volumeMounts": [*container.get("volumeMounts", []), *found.volume_mounts], "env": [*found.env, ENV, *container.get("env", [])]}
    container |= {"image": found.image, "imagePullPolicy": "IfNotPresent", **more}
    container.pop("securityContext", None)
    container["resources"] = {"requests": {"cpu": "100m"}, "limits": {"memory": MEMORY[container["name"]]}}
