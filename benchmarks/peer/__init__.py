"""The closest peer, dagster-ray, in an environment of its own (.venv-dagster-ray, some 0.5 GB): never a part of the project's lock.

requirements.lock: `uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 requirements.txt`.
"""

from pathlib import Path

from tests.environments import environment

NAME = "dagster-ray 0.4.8"


def interpreter() -> Path:
    return environment("dagster-ray", Path(__file__).with_name("requirements.lock"))
