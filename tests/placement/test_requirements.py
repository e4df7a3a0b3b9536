"""Settings of placement that cannot be meant are one line; and what every source says of an offer is put together."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.placement.offers import Offer, gather
from orchestration.placement.requirements import Terms
from orchestration.settings import Settings, load
from ray_jobs.seam.errors import UserError

OFFER = {"region": "us", "accelerator": "H100", "price": 2.5}
PLACEMENT = {"home": "eu", "stores": {"us": {"url": "s3://us"}}, "needs": {"hours": {"H100": 2.0}}, "max_cost": 50.0}


def settings(tmp_path: Path, offer: dict[str, Any] | None = OFFER, placement: dict[str, Any] | None = PLACEMENT) -> Settings:
    place: dict[str, Any] = {"kind": "kuberay", "manifest": "deploy/rayjobs/training.yaml"} | ({"offer": offer} if offer else {})
    document = {"deployment": "one", "targets": {"gang": place}} | ({"placement": placement} if placement else {})
    path = tmp_path / "flywheel.yaml"
    path.write_text(yaml.safe_dump(document))
    return load(path)


def test_a_target_with_an_offer_may_be_chosen(tmp_path: Path) -> None:
    assert settings(tmp_path).offers == {"gang": Terms(region="us", accelerator="H100", price=2.5)}
    assert settings(tmp_path, None, None).offers == {}


@pytest.mark.parametrize(
    ("offer", "placement", "said"),
    [
        (OFFER, None, "targets.gang.offer: nothing chooses among offers without `placement`"),
        (None, PLACEMENT, "placement: no target has an `offer` to choose from"),
        (OFFER | {"region": "asia"}, PLACEMENT, "placement.stores: name the store near asia, the region of the target gang"),
        (OFFER | {"launch": {"evaluation": "nowhere"}}, PLACEMENT, "targets.gang.offer.launch.evaluation names the target 'nowhere', which is not there"),
        (OFFER | {"price": -1}, PLACEMENT, "greater than or equal to 0"),
        (OFFER, PLACEMENT | {"needs": {"hours": {}}}, "placement.needs.hours"),
        (OFFER, PLACEMENT | {"needs": {"hours": {"H100": 1}, "topology": "rack"}}, "placement.needs.topology"),
        (OFFER, PLACEMENT | {"max_cots": 5}, "did you mean 'max_cost'"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, offer: dict[str, Any] | None, placement: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        settings(tmp_path, offer, placement)


class PriceFeed:
    def complete(self, offer: Offer) -> Offer:
        return replace(offer, price=offer.price * 2)


class Capacity:
    def complete(self, offer: Offer) -> Offer:
        return replace(offer, waiting=3)


def test_each_source_adds_what_it_knows() -> None:
    terms = {"b": Terms(**OFFER), "a": Terms(**(OFFER | {"price": 1.0}))}  # type: ignore[arg-type]
    found = gather(terms, [("b", Capacity()), ("b", PriceFeed())])
    assert [(each.target, each.price, each.waiting) for each in found] == [("a", 1.0, 0), ("b", 5.0, 3)]
