"""Runs benchmarks: `python -m benchmarks.run --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.command import run_main

if __name__ == "__main__":
    sys.exit(run_main())
