"""Errors with a class that the launcher acts on, and one line that says what to do."""

from typing import Literal

FailureClass = Literal[
    "user",  # the code or its configuration is wrong: never retried
    "data",  # the content is wrong in a way that no row could carry: never retried
    "invalid_spec",  # the cluster refuses the job as written: never retried
    "out_of_memory",  # retried once with more memory
    "preempted",  # retried
    "infrastructure",  # a node, head, store or control plane was lost: retried
    "capacity",  # nowhere to run: retried or failed over
    "cancelled",  # somebody asked for the end
]


class FlywheelError(Exception):
    """An error whose text is one line for a person: what is wrong, where, and what to do."""

    failure_class: FailureClass = "user"


class UserError(FlywheelError):
    failure_class: FailureClass = "user"


class DataError(FlywheelError):
    failure_class: FailureClass = "data"


class OutOfMemory(FlywheelError):
    """A process was ended because its node or container had no memory left."""

    failure_class: FailureClass = "out_of_memory"


class StoreError(FlywheelError):
    """A store could not be read or written: a full disk, no permission, no network, wrong credentials."""

    failure_class: FailureClass = "infrastructure"


class NotFound(StoreError):
    """No object of that key."""

    failure_class: FailureClass = "data"


class Denied(StoreError):
    """The store refuses what it is asked, and would again: wrong keys, no such bucket, a wrong clock."""

    failure_class: FailureClass = "user"
