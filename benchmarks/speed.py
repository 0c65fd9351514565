"""Times training steps: `python -m benchmarks.speed --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.speed import speed_main

if __name__ == "__main__":
    sys.exit(speed_main())
