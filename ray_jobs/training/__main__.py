from ray_jobs.driver import main
from ray_jobs.seam.configs import TrainConfig
from ray_jobs.training.job import run

if __name__ == "__main__":
    main("training", TrainConfig, run)
