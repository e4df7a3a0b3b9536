"""Training: from a view of day datasets to one immutable model with its lineage."""
