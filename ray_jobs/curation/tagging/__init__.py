"""Tags and captions: what an episode shows, in words. Heuristic for every episode; by a vision-language model where settings name one."""
