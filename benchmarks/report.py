"""Tables and pictures of benchmark results: `python -m benchmarks.report --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.report import report_main

if __name__ == "__main__":
    sys.exit(report_main())
