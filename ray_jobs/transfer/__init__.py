"""Transfer: a packed day is copied to the store near the compute, every byte proven against the manifest."""
