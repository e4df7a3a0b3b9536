"""The review page: what was decided about each episode of a day, the clip, and the signal around the moment that a reason is about."""
