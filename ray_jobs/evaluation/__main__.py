from ray_jobs.driver import main
from ray_jobs.evaluation.job import run
from ray_jobs.seam.configs import EvaluateConfig

if __name__ == "__main__":
    main("evaluation", EvaluateConfig, run)
