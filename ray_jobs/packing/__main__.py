from ray_jobs.driver import main
from ray_jobs.packing.job import run
from ray_jobs.seam.configs import PackConfig

if __name__ == "__main__":
    main("packing", PackConfig, run)
