from ray_jobs.driver import main
from ray_jobs.effect.job import run
from ray_jobs.seam.configs import EffectConfig

if __name__ == "__main__":
    main("effect", EffectConfig, run)
