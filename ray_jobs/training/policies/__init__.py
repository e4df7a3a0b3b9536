"""The built-in policies, one a file, and what those share that look at pictures."""
