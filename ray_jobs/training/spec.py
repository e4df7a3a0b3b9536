"""What a trained policy is, besides its weights. Free of torch, so that a driver can read it at once."""

from ray_jobs.seam.model import Strict


class PolicyConfig(Strict):
    """All that is needed to build the network again, besides the statistics and the weights."""

    policy: str
    state_width: int
    action_width: int
    camera: str | None  # whose frames it sees; None: states alone
    feature_width: int


class Statistics(Strict):
    """Of the training samples. Widths: features f, actions a. `binary`: actions that only ever are 0 or 1 (a gripper)."""

    rows: int
    feature_mean: tuple[float, ...]
    feature_std: tuple[float, ...]
    action_mean: tuple[float, ...]
    action_std: tuple[float, ...]
    binary: tuple[bool, ...]
