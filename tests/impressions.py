"""The table that the README and the quick start describe."""

from pathlib import Path

import numpy as np
import pandas as pd


def write_impressions(path: Path, rows: int = 4000) -> None:
    """A table with strings, numbers, missing values and two labels, the second one defined after the first."""
    rng = np.random.default_rng(0)
    city = rng.choice(["Oslo", "Lima", "Pune", None], rows, p=[0.4, 0.3, 0.2, 0.1])
    price = np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(3, 1, rows).round(2))
    click = rng.random(rows) < np.where(city == "Oslo", 0.6, 0.3)
    conversion = click & (rng.random(rows) < np.where(np.nan_to_num(price, nan=20.0) < 20, 0.5, 0.2))
    table = {
        "user_id": rng.integers(10_000_000_000, 10_000_000_200, rows),
        "city": city,
        "device": rng.choice(["phone", "desktop"], rows),
        "age": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(18, 80, rows)),
        "price": price,
        "click": click.astype(int),
        "conversion": conversion.astype(int),
    }
    pd.DataFrame(table).to_csv(path, index=False)
