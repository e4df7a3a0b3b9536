"""Measuring episodes: stages, the pure checks behind them, and the Ray Data job that streams segments through them."""
