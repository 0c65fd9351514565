"""Loss against the relatedness of tasks, as in the MMoE paper: `python -m benchmarks.correlation_study --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.correlation import correlation_main

if __name__ == "__main__":
    sys.exit(correlation_main())
