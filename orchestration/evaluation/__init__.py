"""Evaluation, the gate that decides, and the champion that obeys."""
