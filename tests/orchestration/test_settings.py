"""The settings document: strict, with one line that says what to do."""

import re
from pathlib import Path

import pytest

from orchestration.launching.places import build
from orchestration.settings import REPOSITORY, load
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import StoreConfig


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
        ("training: {select: [{feild: task}]}", "unknown key 'training.select.0.feild', did you mean 'field'"),
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


TARGETS = "targets: {eu: {kind: kuberay, manifest: deploy/rayjobs/small.yaml}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("launch: {policy: nowhere}\n", "launch.policy names the target 'nowhere', known are embedded"),
        ("deployment: one\n" + TARGETS + "launch: {policy: us}\n", "known are embedded, eu"),
        (TARGETS, "give it a name of its own before it shares clusters"),
        ("deployment: one\ntargets: {eu: {kind: kuberay}}\n", "manifest"),
        ("deployment: one\ntargets: {eu: {kind: cloud}}\n", "kind"),
    ],
)
def test_targets_that_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    document = tmp_path / "flywheel.yaml"
    document.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        load(document)


def test_an_asset_runs_where_the_settings_say(tmp_path: Path) -> None:
    document = tmp_path / "flywheel.yaml"
    document.write_text("deployment: one\n" + TARGETS + "launch: {policy: eu}\n")
    settings = load(document)
    assert (settings.target_of("policy"), settings.target_of("episodes")) == ("eu", "embedded")
    document.write_text("deployment: one\n" + TARGETS + "launch: {default: eu, policy: embedded}\n")
    settings = load(document)
    assert (settings.target_of("policy"), settings.target_of("episodes")) == ("embedded", "eu")
    with pytest.raises(UserError, match="cannot reach the store"):
        build("eu", settings.place("eu"), tmp_path, StoreConfig.local(tmp_path))
