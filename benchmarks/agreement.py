"""Whether several devices train to the weights of one: `python -m benchmarks.agreement --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.agreement import agreement_main

if __name__ == "__main__":
    sys.exit(agreement_main())
