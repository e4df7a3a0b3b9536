"""The measuring job with captions by vLLM, in this environment of its own: good, over-long and corrupt clips in one batch.

What the random model says is never looked at, only its form, whose row it is on, and that it says the same twice.
"""

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from ray_jobs.curation.job import run
from ray_jobs.curation.tagging import captions
from ray_jobs.curation.tagging.request import Answer
from ray_jobs.driver import Execution
from ray_jobs.episode import clip_key, read_meta
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import CaptionSettings, MeasureConfig, MeasureSettings
from ray_jobs.seam.layout import episode_prefix
from ray_jobs.seam.store import Store, StoreConfig
from tests.captioning.tiny_model import make as make_model
from tests.curation.synthetic import make, save, table

DAYS = ("2026-09-21", "2026-09-22")
GOOD, LONG_CLIP, LONG_TASK, CORRUPT, CUT, BLIND, TWIN = (f"{number:032x}" for number in range(1, 8))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="fw-", dir="/tmp")  # Ray's socket paths must stay short
    ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=folder, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two days. TWIN has GOOD's content under another name, for determinism across batches."""
    made = Store(StoreConfig.local(tmp_path_factory.mktemp("store")))
    ordinary = make(0, count=30)
    lengths = {GOOD: ordinary, LONG_CLIP: make(1, count=600), LONG_TASK: make(2, count=30), CORRUPT: make(3, count=30), CUT: make(4, count=60)}
    lengths |= {BLIND: ordinary.but(frames=ordinary.frames[:0]), TWIN: ordinary}
    for name, episode in lengths.items():
        save(made, episode, name)
    meta = read_meta(made, LONG_TASK).model_copy(update={"task": "put the block on the target " * 400})
    made.put(f"{episode_prefix(LONG_TASK)}/episode.json", meta.model_dump_json().encode())
    made.put(clip_key(CORRUPT, "front"), b"no video")
    whole = made.get(clip_key(CUT, "front"))
    made.put(clip_key(CUT, "front"), whole[: len(whole) // 2])
    table(made, DAYS[0], {name: episode for name, episode in lengths.items() if name != TWIN})
    table(made, DAYS[1], {TWIN: ordinary})
    return made


@pytest.fixture(scope="module")
def rows(store: Store, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The ledger's captions after one job over both days."""
    model = make_model(tmp_path_factory.mktemp("tiny-qwen"))
    caption = CaptionSettings(backend="vllm", model=str(model), profile="cpu", frame_px=56, frames=3, max_tokens=450)
    settings = MeasureSettings(caption=caption)
    config = MeasureConfig(store=store.config, days=DAYS, episodes={day: f"tables/{day}.parquet" for day in DAYS}, settings=settings)
    results = run(config, Execution(store, "attempts/captioning/a1/x", report=lambda message: None))
    stages = results[DAYS[0]].output["stages"]
    assert {"signal", "image", "tags", "caption"} <= set(stages) and stages["caption"] == captions.version(caption)
    return {day: ledger.read(store, "caption", stages["caption"], [day]) for day in DAYS}[DAYS[0]] | ledger.read(store, "caption", stages["caption"], [DAYS[1]])


def test_every_episode_has_its_own_row(rows: dict[str, dict[str, Any]]) -> None:
    assert set(rows) == {GOOD, LONG_CLIP, LONG_TASK, CORRUPT, CUT, BLIND, TWIN}
    assert {name for name, row in rows.items() if row["error"]} == {LONG_TASK, CORRUPT, CUT, BLIND}


def test_good_rows_have_the_schema_and_their_source(rows: dict[str, dict[str, Any]]) -> None:
    for name in (GOOD, LONG_CLIP, TWIN):
        tags = rows[name]["tags"]
        assert set(tags) == {"caption", "caption.by", "seen.objects", "seen.scene", "seen.outcome"}
        assert tags["caption.by"].startswith("vllm tiny-qwen") and rows[name]["seconds"] > 0
        said = {"caption": tags["caption"], **{field: tags[f"seen.{field}"] for field in ("objects", "scene", "outcome")}}
        for field, value in said.items():
            assert value == value.strip() and all(ord(letter) >= 32 for letter in value), (field, value)
        assert said["outcome"] in Answer.model_fields["outcome"].annotation.__args__  # type: ignore[union-attr]


def test_a_bad_clip_says_why_and_stays_alone(rows: dict[str, dict[str, Any]]) -> None:
    assert all(not rows[name]["tags"] for name in (LONG_TASK, CORRUPT, CUT, BLIND))
    assert "longer than" in rows[LONG_TASK]["error"] or "max_model_len" in rows[LONG_TASK]["error"] or "maximum" in rows[LONG_TASK]["error"]
    assert "no camera" in rows[BLIND]["error"]
    assert rows[CORRUPT]["error"] and rows[CUT]["error"]


def test_the_same_frames_and_words_give_the_same_answer(rows: dict[str, dict[str, Any]]) -> None:
    assert rows[TWIN]["tags"] == rows[GOOD]["tags"] != rows[LONG_CLIP]["tags"]
