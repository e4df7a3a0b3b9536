"""`make bench [BENCH=name]`: run one benchmark, or all."""

import importlib
import sys

NAMES = ("curation", "overhead", "loop", "detection", "copy", "evaluation", "curation_effect", "duplicates", "growth", "policies", "training")

if __name__ == "__main__":
    wanted = sys.argv[1:] or NAMES
    del sys.argv[1:]  # a benchmark has options of its own, for when it is run by itself
    for name in wanted:
        if name not in NAMES:
            sys.exit(f"there is no benchmark {name!r}: {', '.join(NAMES)}")
        importlib.import_module(f"benchmarks.{name}").main()
