"""Whether training survives the death of a process: `python -m benchmarks.faults --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.faults import faults_main

if __name__ == "__main__":
    sys.exit(faults_main())
