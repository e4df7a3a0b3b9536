"""The run report: what a table of measured numbers makes of who waited for whom."""

import pytest

from ray_jobs.curation.report import Load, Span, advice, bottleneck, facts, loads, table


def load(title: str, workers: int, use: float, cpus: float = 1.0, gpus: float = 0.0) -> Load:
    return Load(title, workers, cpus, gpus, busy_s=use * workers * 10, wall_s=10.0, segments=5, sent_bytes=2_000_000, stages={title: use * workers * 10})


@pytest.mark.parametrize(
    ("pools", "says"),
    [
        ([load("decode", 6, 0.98), load("embed", 1, 0.5, 0.5, 1)], "decode starves embed: 6 more CPUs would double the use of embed"),
        ([load("decode", 6, 0.98), load("embed", 1, 0.2, 0.5, 1)], "decode starves embed: 6 more CPUs would double the use of embed"),
        ([load("decode", 6, 0.95), load("embed", 1, 0.8, 0.5, 1)], "decode starves embed: 2 more CPUs would raise the use of embed from 80% to 100%"),
        ([load("decode", 4, 0.3), load("embed", 2, 0.97, 0.5, 1)], "embed is what everything waits for: 2 more GPUs would halve the time"),
        ([load("decode", 4, 0.3), load("embed", 2, 0.97, 0, 0)], "embed is what everything waits for: 2 more workers would halve the time"),
        (
            [load("decode", 4, 0.9), load("embed", 2, 0.97, 0, 1)],
            "embed is what everything waits for, and the others are nearly as busy: only more of everything would help",
        ),
        ([load("decode+image", 8, 0.96)], "decode+image is what everything waits for: 8 more CPUs would halve the time"),
        ([load("decode", 8, 0.4)], "no pool worked more than 40% of its time: the run was short for its workers, or waited for the store"),
        ([load("decode", 2, 0.9, 0.5), load("embed", 1, 0.5, 0, 1)], "decode starves embed: 1 more CPU would double the use of embed"),
        (
            [load("decode", 2, 0.9), load("embed", 1, 0.5, 0, 1), load("caption", 1, 0.3, 0, 2)],
            "decode starves caption: 2 more CPUs would double the use of caption",
        ),
    ],
)
def test_who_waits_for_whom_and_what_would_help(pools: list[Load], says: str) -> None:
    assert advice(pools) == says


def test_spans_add_up_to_loads() -> None:
    spans = [
        Span(0, "a", 10.0, 12.0, {"decode": 1.5, "image": 0.4}, 3, 100),
        Span(0, "b", 11.0, 14.0, {"decode": 2.0}, 2, 50),
        Span(1, "c", 13.0, 13.5, {"embed": 0.5}, 5, 7),
    ]
    first, second, third = loads(spans, [Load("decode+image", 0, 1, 0), Load("embed", 2, 0, 1), Load("never", 1, 1, 0)])
    assert (first.workers, first.busy_s, first.wall_s, first.segments, first.sent_bytes) == (2, 5.0, 4.0, 5, 150)
    assert first.stages == {"decode": 3.5, "image": 0.4} and first.use == pytest.approx(5 / 8)
    assert (second.workers, second.wall_s, second.use) == (2, 0.5, 0.5)
    assert (third.busy_s, third.use) == (0, 0)
    assert bottleneck([first, second, third]) is first


def test_the_report_is_told_to_people_and_to_machines() -> None:
    pools = [load("decode", 6, 0.98), load("embed", 1, 0.5, 0.5, 1)]
    text = table(pools, 11.0, "7 episodes")
    assert "| decode | 6 | 58.8 | 2% | 5 | 2.0 MB |" in text and "**decode**" in text and "double the use of embed" in text and "7 episodes in 11.0 s" in text
    told = facts(pools, 11.0)
    assert told["bottleneck"] == "decode" and [row["idle"] for row in told["operators"]] == [0.02, 0.5]
