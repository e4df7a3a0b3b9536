"""Ratios measured side by side in one run; each benchmark writes benchmarks/results/<name>.json."""
