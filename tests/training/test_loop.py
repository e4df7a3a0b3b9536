"""The loop: torch's own numbers, the same result after a stop, one line for a loss that is no number."""

import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store
from ray_jobs.training import checkpoint
from ray_jobs.training.features import KEYPOINTS
from ray_jobs.training.loop import State, adamw, fresh, one_cycle, train
from ray_jobs.training.plan import make_plan
from ray_jobs.training.samples import Batch, Moments
from ray_jobs.training.stream import batches, of_episodes
from tests.training.test_policy import built, reaching

SETTINGS = TrainSettings(steps=120, batch=32, workers=2, checkpoint_every=40)


def test_adamw_and_schedule_are_torchs() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(7))
    state = State(0, theirs.detach().clone(), torch.zeros(7), torch.zeros(7))
    optimizer = torch.optim.AdamW([theirs], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=200)
    for step in range(200):
        gradient = torch.randn(7) * (1 + step % 3)
        rate, momentum = one_cycle(step, 200, 2e-3)
        assert (rate, momentum) == pytest.approx((schedule.get_last_lr()[0], optimizer.param_groups[0]["betas"][0]), rel=1e-6)
        adamw(state, gradient, rate, momentum)
        state.step += 1
        theirs.grad = gradient.clone()
        optimizer.step()
        if step < 199:
            schedule.step()
    assert torch.allclose(state.weights, theirs.detach(), atol=1e-6)


def lanes(parts: list[Moments], first: int, chosen: Iterable[int] = (0, 1), size: int = 16) -> dict[int, Iterator[Batch]]:
    plan = make_plan([len(part) for part in parts], [1.0] * len(parts), 2, 0, 100)
    fetch = of_episodes(plan, parts, KEYPOINTS)
    return {lane: batches(plan, lane, size, first, fetch, KEYPOINTS) for lane in chosen}


def test_stopped_and_resumed_ends_where_it_would_have(store: Store) -> None:
    torch.set_num_threads(1)
    parts = reaching(10)

    class Killed(RuntimeError):
        pass

    def after(state: State) -> None:
        if state.step == 80:
            checkpoint.save(store, "attempts/b/a1/first", state, "subject")
            raise Killed

    whole, first, second = built(parts), built(parts), built(parts)
    train(whole, lanes(parts, 0), SETTINGS, fresh(whole))
    with pytest.raises(Killed):
        train(first, lanes(parts, 0), SETTINGS, fresh(first), after=after)
    found = checkpoint.newest(store, ["attempts/b/a1/second", "attempts/b/a1/first"], "subject")
    assert found is not None and found.step == 80
    train(second, lanes(parts, found.step), SETTINGS, found)
    for name, value in whole.tensors().items():
        assert np.array_equal(value, second.tensors()[name])


def test_two_processes_that_share_the_lanes_learn_what_one_does() -> None:
    """Up to the order in which floats are added: each adds up its lane's gradient and waits for the other's."""
    torch.set_num_threads(1)
    parts = reaching(10)
    one, shared = built(parts), [built(parts), built(parts)]
    train(one, lanes(parts, 0), SETTINGS, fresh(one))
    barrier, sums = threading.Barrier(2), {}

    def reduce_for(rank: int) -> Callable[[torch.Tensor], None]:
        def reduce(vector: torch.Tensor) -> None:
            sums[rank] = vector.clone()
            barrier.wait(30)
            total = sums[0] + sums[1]
            barrier.wait(30)
            vector.copy_(total)

        return reduce

    def work(rank: int) -> None:
        train(shared[rank], lanes(parts, 0, [rank]), SETTINGS, fresh(shared[rank]), reduce_for(rank))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, value in one.tensors().items():
        assert np.array_equal(shared[0].tensors()[name], shared[1].tensors()[name])
        assert np.allclose(value, shared[0].tensors()[name], atol=1e-4)


def test_only_whole_checkpoints_of_the_same_subject_count(store: Store) -> None:
    state = fresh(built(reaching(2)))
    state.step = 40
    checkpoint.save(store, "attempts/b/a1/one", state, "this")
    state.step = 80
    checkpoint.save(store, "attempts/b/a1/two", state, "other")
    store.put("attempts/b/a1/two/checkpoints/000000120.safetensors", b"cut off")
    executions = ["attempts/b/a1/one", "attempts/b/a1/two", "attempts/b/a1/three"]
    found = checkpoint.newest(store, executions, "this")
    assert found is not None and found.step == 40
    assert checkpoint.newest(store, executions, "none") is None


def test_a_loss_that_is_no_number_is_one_line() -> None:
    parts = reaching(2)
    policy = built(reaching(2))
    for part in parts:
        part.seen["features"][:] = np.nan  # as an overflow within training would
    with pytest.raises(DataError, match="the training loss became nan at step 1") as error:
        train(policy, lanes(parts, 0), SETTINGS, fresh(policy))
    assert "\n" not in str(error.value)
