"""Evaluation: how good a model is, in closed loop on paired seeds and offline on held-out episodes."""
