"""What the UI's buttons do, by GraphQL: launch a run, a backfill, a re-execution; stop a run; ask for their state."""

import time
from typing import Any

import requests

from ray_jobs.seam.errors import StoreError, UserError

LOCATION, REPOSITORY_NAME = "flywheel", "__repository__"
DONE = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on InvalidSubsetError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on PipelineNotFoundError { message } ... on UnauthorizedError { message } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } ... on PartitionSetNotFoundError { message }
  ... on InvalidSubsetError { message } ... on PartitionKeysNotFoundError { message } } }"""
_BACKFILL_STATE = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PartitionBackfill { status runs: runs { id runId status } error { message } } } }"""
_REEXECUTE = """mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_STOP = """mutation($id: String!, $policy: TerminateRunPolicy) { terminateRun(runId: $id, terminatePolicy: $policy) { __typename
  ... on TerminateRunSuccess { run { runId } } ... on TerminateRunFailure { message } ... on RunNotFoundError { message } ... on PythonError { message } } }"""
_RUNS = """query($filter: RunsFilter, $limit: Int) { runsOrError(filter: $filter, limit: $limit) { __typename
  ... on Runs { results { runId status jobName tags { key value } } } } }"""


class GraphQL:
    """A client of one Dagster webserver. Raises StoreError where it does not answer, UserError where it refuses."""

    def __init__(self, url: str):
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        try:
            answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
            document = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise StoreError(f"Dagster's webserver at {self.url} does not answer: {error}") from error
        if document.get("errors"):
            raise UserError(f"Dagster refuses the request: {document['errors'][0]['message']}")
        (result,) = document["data"].values()
        return result

    def launch(self, job: str, day: str | None = None, last_day: str | None = None, assets: list[str] | None = None, tags: dict[str, str] | None = None) -> str:
        """Launch a run of a job for one day, a range of days, or no partition; returns its run id."""
        tags = dict(tags or {})
        if day and last_day and last_day != day:
            tags |= {"dagster/asset_partition_range_start": day, "dagster/asset_partition_range_end": last_day}
        elif day:
            tags["dagster/partition"] = day
        selector: dict[str, Any] = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY_NAME, "jobName": job}
        if assets:
            selector["assetSelection"] = [{"path": [name]} for name in assets]
        metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        result = self.ask(_LAUNCH, params={"selector": selector, "runConfigData": {}, "executionMetadata": metadata})
        return str(_ok(result, "LaunchRunSuccess")["run"]["runId"])

    def backfill(self, assets: list[str], days: list[str]) -> str:
        """Launch an asset backfill, as the UI's dialog does; returns its id."""
        params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": days, "tags": []}
        return str(_ok(self.ask(_BACKFILL, params=params), "LaunchBackfillSuccess")["backfillId"])

    def await_backfill(self, backfill_id: str, budget_s: float) -> tuple[str, list[dict[str, str]]]:
        """Wait until the backfill is over: (status, its runs)."""
        deadline = time.monotonic() + budget_s
        while time.monotonic() < deadline:
            state = self.ask(_BACKFILL_STATE, id=backfill_id)
            if state["status"] not in {"REQUESTED", "CANCELING", "FAILING"}:
                return state["status"], state["runs"]
            time.sleep(0.5)
        raise StoreError(f"backfill {backfill_id} was not over within {budget_s:.0f} s")

    def reexecute(self, run_id: str, strategy: str = "FROM_FAILURE") -> str:
        result = self.ask(_REEXECUTE, params={"parentRunId": run_id, "strategy": strategy})
        return str(_ok(result, "LaunchRunSuccess")["run"]["runId"])

    def stop(self, run_id: str, at_once: bool = False) -> None:
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if at_once else "SAFE_TERMINATE"
        _ok(self.ask(_STOP, id=run_id, policy=policy), "TerminateRunSuccess")

    def status(self, run_id: str) -> str:
        (run,) = self.runs({"runIds": [run_id]}) or [{"status": "NOT_FOUND"}]
        return str(run["status"])

    def runs(self, selection: dict[str, Any], limit: int = 100) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = self.ask(_RUNS, filter=selection, limit=limit)["results"]
        return results

    def await_run(self, run_id: str, budget_s: float) -> str:
        """Wait until the run is over; returns its final status."""
        deadline = time.monotonic() + budget_s
        while time.monotonic() < deadline:
            if (status := self.status(run_id)) in DONE:
                return status
            time.sleep(0.3)
        raise StoreError(f"run {run_id} was not over within {budget_s:.0f} s")


def _ok(result: Any, wanted: str) -> Any:
    if result["__typename"] != wanted:
        message = result.get("message") or "; ".join(error["message"] for error in result.get("errors", [])) or result["__typename"]
        raise UserError(f"Dagster refuses: {message.splitlines()[0]}")
    return result
