"""Counts what workers send one another in a step: `python -m benchmarks.communication --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.communication import communication_main

if __name__ == "__main__":
    sys.exit(communication_main())
