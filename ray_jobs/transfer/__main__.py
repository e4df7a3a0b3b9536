from ray_jobs.driver import main
from ray_jobs.seam.configs import CopyConfig
from ray_jobs.transfer.job import run

if __name__ == "__main__":
    main("transfer", CopyConfig, run)
