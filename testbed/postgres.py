"""PostgreSQL for Dagster: user and database `dagster`, on the bridge."""

import shutil
from pathlib import Path

from testbed.layout import BRIDGE_ADDRESS, POD_NETWORK, POSTGRES_PORT, RUN
from testbed.processes import boot, start, wait_for
from testbed.shell import read, run, succeeds

URL = f"postgresql://dagster:dagster@{BRIDGE_ADDRESS}:{POSTGRES_PORT}/dagster"
_USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")  # it refuses to run as root

# After a SIGKILL its lock file names a process that is a zombie for a while, which it would take for another server
_FORGET = '[ ! -f "$0" ] || sed -i 1s/.*/99999999/ "$0"; exec "$@"'


def _programs() -> Path:
    return max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"


def start_postgres() -> None:
    """Without passwords and fsync: only this machine and its pods reach it, and its data goes with the cluster."""
    data = RUN / "postgres"
    if not (data / "made").exists():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        shutil.chown(data, "postgres", "postgres")
        run(*_USER, _programs() / "initdb", "-D", data, "-A", "trust", "-U", "dagster", "--no-sync", cwd="/")
        with (data / "pg_hba.conf").open("a") as handle:
            handle.write(f"host all all {POD_NETWORK} trust\n")
        (data / "made").touch()
    memory = ("-c", "dynamic_shared_memory_type=mmap")  # in its folder: nothing is left of it after a SIGKILL
    socket = ("-c", f"listen_addresses={BRIDGE_ADDRESS}", "-c", "unix_socket_directories=")
    program = (_programs() / "postgres", "-D", data, "-p", POSTGRES_PORT, *socket, "-c", "fsync=off", "-c", "max_connections=300", *memory)
    start("postgres", *_USER, "sh", "-c", _FORGET, data / "postmaster.pid", *program)


def wait_ready() -> None:
    wait_for("postgres", 30, ready)
    server = URL.rpartition("/")[0]
    if not succeeds(_programs() / "psql", "-qd", URL, "-c", "SELECT 1"):
        run(_programs() / "psql", "-qd", f"{server}/postgres", "-c", "CREATE DATABASE dagster")


def clear() -> None:
    """Killed, it leaves a piece of shared memory, whose number is in the last line but one of its lock file."""
    lines = read(RUN / "postgres" / "postmaster.pid").decode().splitlines()
    if len(lines) > 6 and read(RUN / "boot").decode() == boot():
        succeeds("ipcrm", "-m", lines[6].split()[1])


def ready() -> bool:
    return succeeds(_programs() / "pg_isready", "-qd", URL.rpartition("/")[0])
