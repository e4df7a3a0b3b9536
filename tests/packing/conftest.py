import pytest

from ray_jobs.driver import Execution
from ray_jobs.seam.store import Store


@pytest.fixture
def execution(store: Store) -> Execution:
    return Execution(store, "attempts/b/a1/x", report=lambda message: None)
