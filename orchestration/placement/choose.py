"""Choosing: settings, live offers and the store's knowledge of copies go into the pure decision."""

from collections.abc import Iterator

from orchestration.launching.places import KubeRay, manifest_of
from orchestration.partitions import window
from orchestration.placement.decide import Plan, decide
from orchestration.placement.decision import Move, Packed, packed
from orchestration.placement.offers import Offer, Source, gather
from orchestration.placement.requirements import PlacementSettings, Terms
from orchestration.settings import Settings
from ray_jobs.seam.store import Store


def offers(settings: Settings) -> list[Offer]:
    """What every target offers now. Another source, a price feed for one, is one more line here."""
    return gather(settings.offers, sources(settings))


def sources(settings: Settings) -> Iterator[tuple[str, Source]]:
    for name, terms in settings.offers.items():
        place = settings.place(name)
        if isinstance(place, KubeRay):
            yield name, _live(place, terms)


def _live(place: KubeRay, terms: Terms) -> Source:
    from orchestration.launching.kuberay.api import Kubernetes
    from orchestration.launching.kuberay.manifest import read_manifest
    from orchestration.placement.live import KubernetesOffer

    cluster = read_manifest(manifest_of(place))["spec"]["rayClusterSpec"]
    group = (cluster.get("workerGroupSpecs") or [cluster["headGroupSpec"]])[0]
    return KubernetesOffer(
        lambda: Kubernetes(place.namespace, place.kubeconfig, place.context), terms.resource, group["template"].get("spec") or {}, place.queue
    )


def what_is_packed(store: Store, settings: Settings, day: str) -> Packed:
    return packed(store, window(day), tuple(sorted({terms.region for terms in settings.offers.values()})))


def plan_for(settings: PlacementSettings, found: list[Offer], data: Packed, moves: tuple[Move, ...] = ()) -> Plan:
    """The plan after these moves: what they cost is spent, and their targets are not tried again."""
    budget = settings.max_cost - sum(move.cost for move in moves)
    links = [link.model_copy(update={"mb_per_s": data.rates.get(link.destination, link.mb_per_s)}) for link in settings.links if link.source == settings.home]
    return decide(settings.needs, found, data.missing, settings.home, links, budget, {move.target: move.why for move in moves})
