"""Runs in the peer's environment: one asset that launches the tiny job through dagster-ray, as its documentation shows.

`python asset.py ORDER.json`: {"kind": "ray" | "kuberay", "job": command, "seconds": of work, "marks": [where the job of each turn tells its marks],
"address" and "headers" of the Ray cluster, or "kubeconfig" and "manifest" of the RayJob}.
Prints one JSON line a turn: {"start", "materialized", "metadata": did the job's value arrive}. The first turn of a process is cold.
"""

import copy
import json
import sys
import tempfile
from typing import Any

import dagster as dg


def client(order: dict[str, Any]) -> Any:
    """A new one each turn, with its own defaults: a run has a process, and so a client, of its own."""
    if order["kind"] == "ray":
        from dagster_ray import PipesRayJobClient

        return PipesRayJobClient(address=order["address"], headers=order["headers"])
    from dagster_ray.kuberay import PipesKubeRayJobClient
    from dagster_ray.kuberay.client import RayJobClient

    class Client(PipesKubeRayJobClient):
        """Outside the cluster its DNS names mean nothing: the dashboard is asked at the head pod's own address."""

        def resolve_hostname(self, service_name: str, namespace: str, dashboard_port: int) -> str:
            endpoints = self.client._core_v1_api.read_namespaced_endpoints(service_name, namespace)
            return f"http://{endpoints.subsets[0].addresses[0].ip}:{dashboard_port}"

    return Client(client=RayJobClient(kube_config=order["kubeconfig"]))


def asked(order: dict[str, Any], where: str) -> dict[str, Any]:
    entrypoint = f"{order['job']} {where} {order['seconds']} --pipes"
    if order["kind"] == "ray":
        return {"submit_job_params": {"entrypoint": entrypoint}}
    manifest = copy.deepcopy(order["manifest"])
    manifest["spec"]["entrypoint"] = entrypoint
    return {"ray_job": manifest}


def materialized(order: dict[str, Any], where: str) -> dict[str, Any]:
    made = client(order)

    @dg.asset
    def tiny(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return made.run(context=context, **asked(order, where)).get_materialize_result()

    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        result = dg.materialize([tiny], instance=instance)
        events = {entry.dagster_event.event_type_value: entry for entry in instance.all_logs(result.run_id) if entry.dagster_event}
    event = events["ASSET_MATERIALIZATION"]
    metadata = event.dagster_event.event_specific_data.materialization.metadata
    return {"start": events["STEP_START"].timestamp, "materialized": event.timestamp, "metadata": "answer" in metadata}


def main() -> None:
    with open(sys.argv[1]) as document:
        order = json.load(document)
    for where in order["marks"]:
        print(json.dumps(materialized(order, where)), flush=True)


if __name__ == "__main__":
    main()
