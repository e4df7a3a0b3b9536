"""Launching: one Ray job per heavy step, found again, retried, stopped and published by docs/protocol.md."""
