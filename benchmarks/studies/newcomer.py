"""A newcomer's first hour: from a CSV file to a leaderboard, with wrong inputs on the way, typed into a terminal.

    python -m benchmarks.studies.newcomer --out benchmarks/results/bench/newcomer.txt
    python -m benchmarks.studies.newcomer --install --out benchmarks/results/bench/newcomer.txt

The second form starts with an empty virtual environment into which this checkout is installed, as `pip install` does
it; it needs a package index. The transcript has the commands, all that was answered, and the minutes that each took.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._terminal import Terminal
from mtl_zoo.benchmark import environment

RIGHT = (
    "mtl-zoo bench run --table visits.csv --task click --task booking@click --models shared_bottom mmoe esmm "
    "--out results/"
)
LINES = (
    "head -3 visits.csv",
    "mtl-zoo bench run --table visit.csv --task click",
    "mtl-zoo bench run --table visits.csv --task clicked",
    "mtl-zoo bench run --table visits.csv --task city:binary",
    "mtl-zoo bench run --table visits.csv --task click --models mmoe plee esmm",
    RIGHT,
    RIGHT,
    "ls results",
)


# What pip says of the indexes that it is set up with on one machine.
_OF_THIS_PIP = re.compile(r"^WARNING: Location .*\n", re.MULTILINE)


def visits(rows: int = 4000, seed: int = 0) -> pd.DataFrame:
    """A table of a kind that everybody has: ids, strings, numbers with holes, a click and what came of it."""
    rng = np.random.default_rng(seed)
    visitor, hotel = rng.integers(0, 400, rows), rng.integers(0, 60, rows)
    city, device = rng.choice(["Oslo", "Lima", "Pune", "Kiel"], rows), rng.choice(["phone", "desktop"], rows)
    price, ahead = rng.lognormal(4.5, 0.4, rows).round(2), rng.integers(0, 90, rows)
    liked = rng.normal(size=60)[hotel] + 0.5 * rng.normal(size=400)[visitor] - 1.2 * (np.log(price) - 4.5)
    liked += np.where((device == "phone") & (ahead < 10), 0.8, 0.0)
    click = rng.random(rows) < 1 / (1 + np.exp(0.8 - liked))
    booking = click & (rng.random(rows) < 1 / (1 + np.exp(1.0 - 0.8 * liked + 0.01 * ahead)))
    table = pd.DataFrame({"visitor_id": visitor, "hotel_id": hotel, "city": city, "device": device, "price": price})
    table.loc[rng.random(rows) < 0.05, "price"] = np.nan
    return table.assign(days_ahead=ahead, click=click.astype(int), booking=booking.astype(int))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    args = frame.parser(__doc__ or "", {"install": False}, "the transcript").parse_args(arguments)
    before = os.getloadavg()[2]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        visits().to_csv(folder / "visits.csv", index=False)
        transcript = _typed(folder, args.install)
        about = environment.about()
        head = f"# commit {about['commit']}, Python {platform.python_version()}, {about['hardware']}\n"
        head += f"# load of the machine over 15 minutes, before and after: {before:.1f}, {os.getloadavg()[2]:.1f}\n\n"
        text = (head + transcript).replace(str(frame.ROOT), "CHECKOUT").replace(sys.executable, "python")
        text = _OF_THIS_PIP.sub("", text)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
    return 0


def _typed(folder: Path, install: bool) -> str:
    """The transcript of a shell in this folder."""
    environ = {"PS1": "$ ", "PS2": "", "PYTHONPATH": str(frame.ROOT)}
    terminal = Terminal(["bash", "--norc", "--noediting"], "$ ", folder, environ)
    if install:
        terminal.type("unset PYTHONPATH")
        terminal.transcript = ""
        terminal.type("python3 -m venv new && . new/bin/activate && PS1='$ '", 600)
        terminal.type(f"pip install -q {frame.ROOT}", 3600)
    else:
        terminal.type(f'mtl-zoo() {{ {sys.executable} -m mtl_zoo_cli "$@"; }}')
        terminal.transcript = ""
    for line in LINES:
        terminal.type(line, 3600)
    terminal.close()
    return terminal.transcript


if __name__ == "__main__":
    frame.start(__file__)
