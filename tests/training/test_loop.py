"""The loop: torch's own numbers, the same result after a stop, one line for a loss that is no number."""

import numpy as np
import pytest
import torch

from ray_jobs.seam.configs import TrainSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.store import Store
from ray_jobs.training import checkpoint
from ray_jobs.training.loop import State, adamw, fresh, one_cycle, resident_batches, train
from ray_jobs.training.samples import join
from tests.training.test_policy import built, reaching

SETTINGS = TrainSettings(steps=120, batch=32, workers=1, checkpoint_every=40)


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


def test_stopped_and_resumed_ends_where_it_would_have(store: Store) -> None:
    torch.set_num_threads(1)
    parts = reaching(10)
    rows = join(parts)

    class Killed(RuntimeError):
        pass

    def save(state: State) -> None:
        checkpoint.save(store, "attempts/b/a1/first", state, "subject")
        if state.step == 80:
            raise Killed

    whole, first, second = built(parts), built(parts), built(parts)
    train(whole, resident_batches(rows, 32, 0, 0, 0), SETTINGS, fresh(whole))
    with pytest.raises(Killed):
        train(first, resident_batches(rows, 32, 0, 0, 0), SETTINGS, fresh(first), checkpoint=save)
    found = checkpoint.newest(store, ["attempts/b/a1/second", "attempts/b/a1/first"], "subject")
    assert found is not None and found.step == 80
    train(second, resident_batches(rows, 32, 0, 0, found.step), SETTINGS, found)
    for name, value in whole.tensors().items():
        assert np.array_equal(value, second.tensors()[name])


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
    parts[0].features[:] = np.nan  # as an overflow within training would
    policy = built(reaching(2))
    with pytest.raises(DataError, match="the training loss became nan at step 1") as error:
        train(policy, resident_batches(join(parts), 32, 0, 0, 0), SETTINGS, fresh(policy))
    assert "\n" not in str(error.value)


def test_every_row_is_seen_in_every_epoch_and_ranks_differ() -> None:
    rows = join(reaching(4))
    batches = resident_batches(rows, 16, 0, 0, 0)
    seen = torch.cat([next(batches)[0] for _ in range(len(rows) // 16)])
    assert len(torch.unique(seen, dim=0)) == len(rows)
    one, other = next(resident_batches(rows, 16, 0, 0, 0))[0], next(resident_batches(rows, 16, 0, 1, 0))[0]
    assert not torch.equal(one, other)
