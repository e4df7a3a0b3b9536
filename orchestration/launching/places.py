"""The launch targets of a deployment as its settings name them, and how each is built."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestration.launching.code import REPOSITORY, publish_code
from orchestration.launching.embedded import EmbeddedTarget
from orchestration.launching.head import Head
from orchestration.launching.target import Target
from orchestration.launching.work import Budgets
from orchestration.placement.requirements import Terms
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import Strict
from ray_jobs.seam.store import Store, StoreConfig

GIB = 2**30


class Embedded(Strict):
    """The project's own Ray head on this machine. Every deployment has one, named `embedded`."""

    kind: Literal["embedded"] = "embedded"
    memory_limit: int = 64 * GIB
    budgets: Budgets = Budgets()
    offer: Terms | None = None  # what placement may choose it for; without it, never


class Address(Strict):
    """A Ray cluster that somebody runs, at the address of its dashboard (http://host:8265).

    Its own processes need the stores' credentials in their environment, and AWS_* (AWS_ENDPOINT_URL) to fetch the code archive.
    """

    kind: Literal["address"]
    url: str
    token: str | None = None  # where the cluster's token is: an environment variable, or with a slash a file
    memory_limit: int = 64 * GIB
    budgets: Budgets = Budgets(unreachable=300.0)
    offer: Terms | None = None


class KubeRay(Strict):
    """RayJobs in one namespace of one Kubernetes context. Several targets may name several clusters, or several manifests of one."""

    kind: Literal["kuberay"]
    manifest: Path  # a RayJob in YAML; below the repository unless absolute
    namespace: str = "default"
    kubeconfig: Path | None = None  # without it: the pod's service account, else the user's kubeconfig
    context: str | None = None
    queue: str | None = None  # a LocalQueue of Kueue
    priority: str | None = None  # a WorkloadPriorityClass of Kueue
    secret: str | None = None  # the Secret in the namespace whose keys hold the stores' credentials
    memory_limit: int = 64 * GIB  # an out-of-memory retry never asks for more
    budgets: Budgets = Budgets(queued=86400.0, starting=600.0, unreachable=300.0, stopping=60.0)
    offer: Terms | None = None


Place = Annotated[Embedded | Address | KubeRay, Field(discriminator="kind")]


def manifest_of(place: KubeRay) -> Path:
    return place.manifest if place.manifest.is_absolute() else REPOSITORY / place.manifest


def build(name: str, place: Embedded | Address | KubeRay, home: Path, store: StoreConfig) -> Target:
    """The target that settings describe. Raises UserError, InvalidSpec with what is missing; touches no cluster."""
    if isinstance(place, Embedded):
        return EmbeddedTarget(Head(home), store)
    if store.url.startswith("file:"):
        raise UserError(f"the target {name} cannot reach the store {store.url}: set `store` (and raw, compute) to an object store that its nodes reach")

    def code_uri(sha256: str) -> str:
        return publish_code(Store(store), sha256)

    if isinstance(place, Address):
        from orchestration.launching.address import AddressTarget

        return AddressTarget(place.url, place.token, store, code_uri)
    from orchestration.launching.kuberay.api import Kubernetes
    from orchestration.launching.kuberay.target import KubeRayTarget

    api = Kubernetes(place.namespace, place.kubeconfig, place.context)
    return KubeRayTarget(api, manifest_of(place), store, code_uri, queue=place.queue, priority=place.priority, secret=place.secret)
