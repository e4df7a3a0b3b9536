"""PostgreSQL for Dagster: user and database `dagster`, on the bridge."""

import shutil
from pathlib import Path

from testbed.layout import BRIDGE_ADDRESS, POD_NETWORK, POSTGRES_PORT, RUN
from testbed.processes import start, wait_for
from testbed.shell import run, succeeds

URL = f"postgresql://dagster:dagster@{BRIDGE_ADDRESS}:{POSTGRES_PORT}/dagster"
_USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")  # it refuses to run as root


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
    socket = ("-c", f"listen_addresses={BRIDGE_ADDRESS}", "-c", "unix_socket_directories=")
    start("postgres", *_USER, _programs() / "postgres", "-D", data, "-p", POSTGRES_PORT, *socket, "-c", "fsync=off", "-c", "max_connections=300")


def wait_ready() -> None:
    wait_for("postgres", 30, ready)
    server = URL.rpartition("/")[0]
    if not succeeds(_programs() / "psql", "-qd", URL, "-c", "SELECT 1"):
        run(_programs() / "psql", "-qd", f"{server}/postgres", "-c", "CREATE DATABASE dagster")


def ready() -> bool:
    return succeeds(_programs() / "pg_isready", "-qd", URL.rpartition("/")[0])
