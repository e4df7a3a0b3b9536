from ray_jobs.driver import main
from ray_jobs.seam.configs import TuningConfig
from ray_jobs.tuning.job import run

if __name__ == "__main__":
    main("tuning", TuningConfig, run)
