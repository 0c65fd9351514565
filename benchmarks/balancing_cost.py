"""Times steps with balancing methods against the plain sum: `python -m benchmarks.balancing_cost --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.balancing_cost import balancing_cost_main

if __name__ == "__main__":
    sys.exit(balancing_cost_main())
