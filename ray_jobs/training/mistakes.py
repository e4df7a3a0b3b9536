"""What a policy's own code raises is told as its author's: raised as it is, Ray Train and the launcher would try it again and again."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ray_jobs.seam.errors import UserError

MISTAKES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, RuntimeError, TypeError, ValueError)


@contextmanager
def by_the_author_of(policy: str) -> Iterator[None]:
    """Around calls of a policy's code; as a decorator, around one function of it. Raises UserError that names the line which raised.

    A device that fails is no mistake (torch.AcceleratorError; of memory that is used up torch speaks otherwise), and passes as it is.
    """
    try:
        yield
    except MISTAKES as error:
        if type(error).__name__ == "AcceleratorError":
            raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        said = (str(error).strip().splitlines() or ["no text"])[0][:200]
        raise UserError(f"the policy {policy!r} raised {type(error).__name__}: {said} ({where.filename}, line {where.lineno}: {where.line})") from error
