"""What Ray's own errors mean: their class, and which of their many lines tells a person. Imports no Ray: it goes by names."""

import re
from collections.abc import Iterator

from ray_jobs.seam.errors import FailureClass

_CLASSES: dict[str, FailureClass] = {  # of ray.exceptions
    "OutOfMemoryError": "out_of_memory",
    "WorkerCrashedError": "infrastructure",
    "NodeDiedError": "infrastructure",
    "ActorDiedError": "infrastructure",
    "ActorUnavailableError": "infrastructure",
    "LocalRayletDiedError": "infrastructure",
    "ObjectLostError": "infrastructure",
    "RaySystemError": "infrastructure",
}
_MEMORY = re.compile(r"memory on the node|running low on memory|memory usage threshold|out of memory", re.IGNORECASE)


def class_of(error: BaseException) -> FailureClass | None:
    """The class of an error in whose chain Ray lost a process, a node or an object; None where Ray lost nothing.

    An actor that died of its own constructor is the user's. What the memory monitor killed is about memory, whatever type the error has
    on its way up.
    """
    found: FailureClass | None = None
    for each in chain(error):
        if not type(each).__module__.startswith("ray.") or "creation task" in str(each):
            continue
        known = next((_CLASSES[base.__name__] for base in type(each).__mro__ if base.__name__ in _CLASSES), None)
        if known == "out_of_memory" or _MEMORY.search(str(each)):
            return "out_of_memory"
        found = found or known
    return found


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, outermost first; Ray keeps a cause of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__


def telling_line(error: BaseException) -> str:
    """One line: the first that speaks of memory where there is one, else the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    about_memory = [line for line in lines if _MEMORY.search(line)]
    return (about_memory or lines[-1:] or [type(error).__name__])[0][:300]
