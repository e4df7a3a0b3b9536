"""The seam: the only part of ray_jobs that orchestration imports.

Frozen models of job configs and results, the layout of the store, and the tables that cross between the two sides.
Nothing here imports dagster, ray or torch.
"""
