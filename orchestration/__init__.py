"""When and why: Dagster definitions, launching, gates and presentation. Never imports ray or torch."""
