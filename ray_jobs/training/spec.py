"""What a trained policy is, besides its weights. Free of torch, so that a driver can read it at once."""

from ray_jobs.seam.model import Strict


class PolicyConfig(Strict):
    """All that is needed to build the network again, besides the statistics and the weights."""

    policy: str
    state_width: int
    action_width: int
    cameras: tuple[str, ...]  # whose frames it sees; none: states alone
    shapes: dict[str, tuple[int, ...]]  # of each observation, of one moment


class Statistics(Strict):
    """Of the training rows. `mean`, `std`: observation -> one value per column, pictures left out. `binary`: actions that only ever are 0 or 1 (a gripper)."""

    rows: int
    mean: dict[str, tuple[float, ...]]
    std: dict[str, tuple[float, ...]]
    action_mean: tuple[float, ...]
    action_std: tuple[float, ...]
    binary: tuple[bool, ...]
