"""Runs benchmarks, as `mtl-zoo bench run` does: `python -m benchmarks.run --help`."""

import sys

from mtl_zoo_cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "run", *sys.argv[1:]]))
