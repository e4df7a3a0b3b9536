"""A real Kubernetes with KubeRay, Kueue, S3 and PostgreSQL on this machine: what tests and benchmarks of clusters run against.

From Python: `testbed.state()` says where everything is, `testbed.faults` breaks and mends it, `testbed.proxy` disturbs requests,
`testbed.audit` reads what was asked of the API server, `testbed.pods` says what a pod mounts. docs/testbed.md is the page about it.
"""

from testbed.description import Account, S3Server, State, state
from testbed.shell import TestbedError

__all__ = ["Account", "S3Server", "State", "TestbedError", "state"]
