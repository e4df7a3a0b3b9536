"""The settings document: strict, with one line that says what to do."""

import pytest

from orchestration.settings import REPOSITORY, load
from ray_jobs.seam.errors import UserError


def write(tmp_path, text):
    path = tmp_path / "flywheel.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("traning: {steps: 3}", "unknown key 'traning', did you mean 'training'"),
        ("training: {stepz: 3}", "unknown key 'training.stepz', did you mean 'steps'"),
        ("raw: {ulr: 's3://x'}", "did you mean 'url'"),
        ("training: {steps: many}", "training.steps"),
        ("- a list", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        load(write(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_document_says_what_to_set(tmp_path):
    with pytest.raises(UserError, match="FLYWHEEL_SETTINGS"):
        load(tmp_path / "none.yaml")


def test_the_environment_outranks_the_document(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWHEEL_TRAINING__STEPS", "7")
    settings = load(write(tmp_path, "training: {steps: 3, batch: 5}"))
    assert (settings.training.steps, settings.training.batch) == (7, 5)


def test_the_demo_document_is_valid():
    assert load(REPOSITORY / "flywheel.yaml").evaluation.evaluator == "simulated_arm"
