"""Curation: thresholds, the fleet's context, and the judge. What was measured is judged here, without any compute."""
