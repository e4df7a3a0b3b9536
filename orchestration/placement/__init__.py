"""Placement: where a day's training runs, decided by price and by where the data is, and followed by copy and launch."""
