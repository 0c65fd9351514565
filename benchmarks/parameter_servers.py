"""A large table on parameter servers against one process: `python -m benchmarks.parameter_servers --help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mtl_zoo.benchmark.parameter_servers import parameter_servers_main

if __name__ == "__main__":
    sys.exit(parameter_servers_main())
