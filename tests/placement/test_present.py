"""What a person reads of a decision."""

from orchestration.placement.decide import Loser, Plan, decide
from orchestration.placement.decision import Decision, Move, decision_of
from orchestration.placement.offers import Offer
from orchestration.placement.present import shown, why_none
from orchestration.placement.requirements import Link, Needs, PlacementSettings, Terms
from ray_jobs.seam.store import StoreConfig

NEEDS = Needs(hours={"H100": 1.5}, count=2)
TERMS = {name: Terms(region=region, accelerator="H100", price=price) for name, region, price in (("us", "us", 2.0), ("eu", "eu", 3.0), ("spot", "us", 9.0))}
STORES = {region: StoreConfig(url=f"s3://{region}") for region in ("eu", "us")}
SETTINGS = PlacementSettings(home="eu", stores=STORES, links=(Link(source="eu", destination="us", price_per_gb=0.02, mb_per_s=500),), needs=NEEDS, max_cost=20)


def decided(*moves: Move) -> Decision:
    offers = [Offer(name, terms.region, terms.accelerator, terms.price, reclaims_per_hour=0.1 if name == "spot" else 0.0) for name, terms in TERMS.items()]
    plan = decide(NEEDS, offers, {"us": 150 * 10**9}, SETTINGS.home, SETTINGS.links, SETTINGS.max_cost, {move.target: move.why for move in moves})
    return decision_of("g", "root", plan, SETTINGS, TERMS, moves)


def test_a_table_of_what_would_do_and_a_reason_for_each_that_lost() -> None:
    made = shown(decided())
    assert made["offers"].value.splitlines()[2:] == [
        "| 1 | eu | eu | H100 | 2 min | 1.5 h | 9.00 | is there | **9.00** |",
        "| 2 | us | us | H100 | 7 min | 1.5 h | 6.00 | 3.00 for 150.0 GB | **9.00** |",
    ]
    assert "**spot** (us): it would cost 30.46 USD, and 20.00 may be spent" in made["why_not_the_others"].value
    assert (made["expected_cost"].value, made["spent_before"].value, made["moves"].value) == (9.0, 0.0, 0) and "moved" not in made


def test_the_story_of_a_move() -> None:
    made = shown(decided(Move(target="eu", region="eu", why="capacity: it waited 60 s in the queue", cost=3.0)))
    assert made["moved"].value.splitlines() == ["1. eu (eu): capacity: it waited 60 s in the queue; it cost 3.00 USD", "2. now us"]
    assert "**eu** (eu): tried already: capacity: it waited 60 s in the queue" in made["why_not_the_others"].value
    assert (made["spent_before"].value, made["moves"].value) == (3.0, 1)


def test_where_none_will_do_one_line_has_every_reason() -> None:
    assert why_none(Plan((), (Loser("us", "us", "too dear"), Loser("eu", "eu", "too late")))) == "eu: too late; us: too dear"
    assert why_none(Plan((), ())) == "there is no offer"
