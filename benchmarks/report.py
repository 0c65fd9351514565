"""Tables and pictures of results, as `mtl-zoo bench report` gives them: `python -m benchmarks.report --help`."""

import sys

from mtl_zoo_cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "report", *sys.argv[1:]]))
