"""A Hugging Face model as the embedding: a tiny one with random weights, saved here; nothing is fetched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, ViTConfig, ViTImageProcessor, ViTModel

from orchestration.curation.duplicates import judged, likeness, prints_of
from orchestration.curation.thresholds import Thresholds
from ray_jobs.curation.job import run
from ray_jobs.curation.measure import Plan, measure_here
from ray_jobs.curation.stages import measuring
from ray_jobs.curation.vision import Vision
from ray_jobs.driver import Execution
from ray_jobs.seam import ledger
from ray_jobs.seam.configs import EmbeddingSettings, MeasureConfig, MeasureSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import Store
from tests.curation.copies import Change, copy_episode
from tests.curation.synthetic import make, row, save, table

DAY = "2026-09-21"
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8}


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    folder = tmp_path / "vit"
    ViTModel(ViTConfig(**SMALL)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    assert (folder / "model.safetensors").exists()
    return str(folder)


def settings(model: str, **changes: Any) -> MeasureSettings:
    return MeasureSettings(segment_s=2.5, embedding=EmbeddingSettings(model=model, frame_px=32, fps=5, batch=8, **changes))


def embedded(store: Store, episode_id: str, chosen: MeasureSettings) -> dict[str, Any]:
    (found,) = measure_here(store, episode_id, Plan.of(chosen), ["embedding"])
    assert found["error"] is None
    return found


def test_the_model_is_the_embedding_stage_in_process_and_in_ray(store: Store, model: str, local_ray: None) -> None:
    episodes = {f"{seed:032x}": make(seed, count=60) for seed in range(3)}
    for name, made in episodes.items():
        save(store, made, name)
    chosen = settings(model, workers=1, memory_mb=512)
    stages = [stage for stage in measuring(chosen) if stage.name in ("embedding", "value")]
    assert isinstance(stages[0], Vision)
    config = MeasureConfig(store=store.config, days=(DAY,), episodes={DAY: table(store, DAY, episodes)}, settings=chosen)
    result = run(config, Execution(store, "attempts/test/a1/x", report=lambda message: None), stages)[DAY]
    assert result.counts == {"episodes": 3, "measured": 3, "reused": 0, "errors": 0}
    version = result.output["stages"]["embedding"]
    assert version != Plan.of(MeasureSettings(segment_s=2.5)).versions["embedding"]
    for name, found in ledger.read(store, "embedding", version, [DAY]).items():
        here = embedded(store, name, chosen)
        assert found["vectors"].keys() == here["vectors"].keys() >= {"embedding", "path", "landmarks.state"}
        for vector in here["vectors"]:
            np.testing.assert_array_equal(found["vectors"][vector], here["vectors"][vector])


def test_copies_are_found_by_what_a_model_sees(store: Store, model: str) -> None:
    chosen = settings(model)
    names = [f"{number:032x}" for number in range(3)]
    made = make(1, count=90)
    save(store, made, names[0])
    save(store, make(2, count=90), names[1])
    copy_episode(store, names[0], names[2], Change(crf=26, cut=(0.1, 0.0)))
    rows = {name: embedded(store, name, chosen) for name in names}
    source, other, copy = prints_of([row(DAY, name, made) for name in names], rows)
    thresholds = Thresholds.load()
    assert judged(likeness(copy, source), thresholds) == "copy"
    assert judged(likeness(copy, other), thresholds) is None


def test_another_model_is_measured_anew_and_another_place_is_not() -> None:
    def version(**changes: Any) -> str:
        return Plan.of(settings("a/model", **changes)).versions["embedding"]

    assert version() == version(gpus=1, workers=4, memory_mb=9000)
    others = [version(revision="b"), version(dtype="bfloat16"), Plan.of(settings("another/model")).versions["embedding"]]
    assert len({version(), Plan.of(MeasureSettings()).versions["embedding"], *others}) == 5


def test_what_the_batch_is_does_not_matter(model: str) -> None:
    stage = Vision(EmbeddingSettings(model=model, batch=8, frame_px=32))
    stage.ready()
    frames = make(3, count=13).frames
    whole = np.concatenate([stage._embed(frames[:8]), stage._embed(frames[8:])])
    np.testing.assert_array_equal(whole[8:10], stage._embed(frames[8:10]))
    assert whole.shape == (13, 48)


def test_of_a_model_of_pictures_and_words_the_seeing_half_is_used(tmp_path: Path) -> None:
    small = {name: value for name, value in SMALL.items() if name not in ("image_size", "patch_size")}
    config = CLIPConfig(text_config=CLIPTextConfig(**small, vocab_size=32).to_dict(), vision_config=CLIPVisionConfig(**SMALL).to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    stage = Vision(EmbeddingSettings(model=str(tmp_path), batch=4, frame_px=32))
    stage.ready()
    assert stage._embed(make(1, count=4).frames).shape == (4, 48)


def test_pickled_weights_and_absent_models_are_refused(tmp_path: Path, model: str) -> None:
    loaded = ViTModel(ViTConfig(**SMALL))
    pickled = tmp_path / "pickled"
    ViTConfig(**SMALL).save_pretrained(pickled)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(pickled)
    torch.save(loaded.state_dict(), pickled / "pytorch_model.bin")
    for name in (str(pickled), str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"measure\.embedding\.model .* cannot be loaded") as told:
            Vision(EmbeddingSettings(model=name)).ready()
        assert "\n" not in str(told.value)
