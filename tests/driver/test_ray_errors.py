"""Ray's own errors, as Ray raises them: which class, and which line."""

import pytest

from ray_jobs.ray_errors import class_of, telling_line

LOW = "Task was killed due to the node running low on memory.\nMemory on the node was 1.91GB / 2.00GB\nRefer to the documentation"


@pytest.fixture(scope="module")
def errors() -> dict[str, BaseException]:
    from ray import exceptions

    return {
        "memory": exceptions.OutOfMemoryError(LOW),
        "crashed": exceptions.WorkerCrashedError(),
        "node": exceptions.NodeDiedError("node died"),
        "actor by memory": exceptions.RayActorError(None, LOW),
        "actor": exceptions.ActorUnavailableError("its worker process has died", None),
        "constructor": exceptions.RayActorError(None, "The actor died because of an error raised in its creation task"),
        "task": exceptions.RayTaskError("f", "Traceback\nValueError: theirs", ValueError("theirs")),
        "theirs": ValueError("out of memory, says somebody else"),
    }


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("memory", "out_of_memory"),
        ("crashed", "infrastructure"),
        ("node", "infrastructure"),
        ("actor by memory", "out_of_memory"),
        ("actor", "infrastructure"),
        ("constructor", None),
        ("task", None),
        ("theirs", None),
    ],
)
def test_class(errors: dict[str, BaseException], name: str, failure: str | None) -> None:
    assert class_of(errors[name]) == failure


def test_a_loss_below_another_error_counts(errors: dict[str, BaseException]) -> None:
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("training failed") from errors["memory"]
    assert class_of(raised.value) == "out_of_memory"


def test_the_line_about_memory_is_told(errors: dict[str, BaseException]) -> None:
    assert telling_line(errors["memory"]).startswith("Task was killed due to the node running low on memory")
    assert telling_line(ValueError("first\nlast")) == "last" and telling_line(ValueError()) == "ValueError"
