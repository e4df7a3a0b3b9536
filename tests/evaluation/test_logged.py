"""Logged trials: what is understood, and one line with file and place for what is not."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.evaluation.evaluator import Scene
from ray_jobs.evaluation.logged import LoggedTrials, read_trials
from ray_jobs.seam.configs import EvaluateSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.store import Store, StoreConfig
from tests.training.recorded import write_clip

A, B = "a" * 32, "b" * 32
HEAD = "policy,trial,success,duration_s,task,condition,seed,video,by,notes\n"


def folder(tmp_path: Path, **files: str) -> Store:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Store(StoreConfig.local(tmp_path))


def test_both_formats_below_any_folder(tmp_path: Path) -> None:
    rows = [{"policy": B, "trial": "t1", "success": False, "duration_s": 30, "condition": "night"}]
    store = folder(tmp_path, a_csv=HEAD + f"{A},t1,TRUE,4.5,,night,,,ada,\n{A}, t2 ,0,12,,,7,,,\n", site__b_json=json.dumps(rows), readme_txt="not a table")
    found = read_trials(store)
    assert {key: (trial.success, trial.duration_s) for key, trial in found.items()} == {
        (A, "t1"): (True, 4.5),
        (A, "t2"): (False, 12.0),
        (B, "t1"): (False, 30.0),
    }
    evaluator = LoggedTrials(EvaluateSettings(evaluator="logged_trials", trials=store.config))
    assert evaluator.scenes() == (Scene(id="t1", condition="night"), Scene(id="t2", seed=7))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a_csv": HEAD + f"{A},t1,maybe,1,,,,,,\n"}, "a.csv line 2: success: must be true or false"),
        ({"a_csv": HEAD + f"{A},t1,true,-1,,,,,,\n"}, "a.csv line 2: duration_s: Input should be greater than or equal to 0"),
        ({"a_csv": HEAD + f"{A},t1,true,nan,,,,,,\n"}, "a.csv line 2: duration_s"),
        ({"a_csv": HEAD + "abc,t1,true,1,,,,,,\n"}, "a.csv line 2: policy"),
        ({"a_csv": HEAD + f"{A},t1,true\n"}, "a.csv line 2: has another number of columns than the header"),
        ({"a_csv": HEAD + f"{A},t1,true,1,,,,,,,,\n"}, "a.csv line 2: has another number of columns than the header"),
        ({"a_csv": "policy,trial,sucess,duration_s\n" + f"{A},t1,true,1\n"}, "a.csv line 2: success: Field required; sucess: Extra inputs"),
        ({"a_csv": "policy,policy\n"}, "a.csv line 1: names a column twice"),
        ({"a_csv": HEAD + f"{A},t1,true,1,,,,,,\n{A},t1,false,1,,,,,,\n"}, "a.csv line 3: trial 't1' of policy aaaaaaaa is logged already, at a.csv line 2"),
        (
            {"a_csv": HEAD + f"{A},t1,true,1,x,,,,,\n{B},t1,true,1,y,,,,,\n"},
            "a.csv line 3: trial 't1' has another task, condition or seed than at a.csv line 2",
        ),
        ({"a_csv": HEAD + f"{A},t1,true,1,,,,gone.mp4,,\n"}, "there is no video 'gone.mp4' below the folder"),
        ({"a_csv": HEAD + f"{A},t1,true,1,,,,../../etc/passwd,,\n"}, "there is no video '../../etc/passwd' below the folder"),
        ({"a_json": "{"}, "a.json is not JSON"),
        ({"a_json": "{}"}, "a.json is not a list of objects"),
        ({"a_json": json.dumps([{"policy": A, "trial": 5, "success": True, "duration_s": 1}])}, "a.json item 1: trial: Input should be a valid string"),
        ({"a_json": "[" * 100_000}, "a.json is not JSON"),
    ],
)
def test_what_is_not_understood_is_one_line_that_names_the_place(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as error:
        read_trials(folder(tmp_path, **files))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_text_in_another_encoding_and_huge_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_bytes(b"policy\xff")
    with pytest.raises(UserError, match=r"a.csv is not UTF-8 text \(byte 6\)"):
        read_trials(Store(StoreConfig.local(tmp_path)))
    monkeypatch.setattr("ray_jobs.evaluation.logged.MOST_BYTES", 3)
    with pytest.raises(UserError, match="split it"):
        read_trials(Store(StoreConfig.local(tmp_path)))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["csv", "json"]))
def test_any_bytes_are_trials_or_a_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("log")
    (path / f"a.{suffix}").write_bytes(data)
    try:
        read_trials(Store(StoreConfig.local(path)))
    except UserError as error:
        assert "\n" not in str(error) and "a." in str(error)


def test_a_video_is_a_film_strip_and_a_broken_one_is_none(tmp_path: Path) -> None:
    import numpy as np

    write_clip(tmp_path / "good.mp4", np.zeros((20, 64, 96, 3), np.uint8))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    evaluator = LoggedTrials(EvaluateSettings(evaluator="logged_trials", trials=StoreConfig.local(tmp_path)))
    film = evaluator._film("good.mp4")
    assert film is not None and film.frames.shape == (8, 96, 96, 3)
    assert evaluator._film("bad.mp4") is None


def test_the_folder_must_be_named() -> None:
    with pytest.raises(UserError, match=r"evaluation\.trials must name the folder"):
        LoggedTrials(EvaluateSettings(evaluator="logged_trials"))
