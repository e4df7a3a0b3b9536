"""What a reader may do to the worker that runs it. Importable there, which a test module is not."""

import os
import time
from typing import Any


def die(*given: Any) -> None:
    os._exit(1)


def fail(*given: Any) -> None:
    raise ZeroDivisionError("a reader's own mistake")


def hang(*given: Any) -> None:
    time.sleep(600)
