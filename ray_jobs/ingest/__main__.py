"""`python -m ray_jobs.ingest`: read the uploads of some days."""

from ray_jobs.driver import main
from ray_jobs.ingest.job import run
from ray_jobs.seam.configs import IngestConfig

if __name__ == "__main__":
    main("ingest", IngestConfig, run)
