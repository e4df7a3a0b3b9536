"""The work of the loop: each step is one Ray job, `python -m ray_jobs.<step>`, that also runs by hand."""
