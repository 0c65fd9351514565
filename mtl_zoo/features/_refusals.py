"""What is said of columns whose cells no feature, or not this one, can read."""

from __future__ import annotations

import pandas as pd

from mtl_zoo import _validation as check

_TIMES = ("time", "timedelta", "timedelta64", "period", "interval", "duration", "time32", "time64")


def type_refusal(name: str, series: pd.Series, what: str) -> str:
    """The words of an error about cells of the type `what`."""
    if what == "date" or what in _TIMES:
        advice = "Read it as a Datetime, or derive" if what == "date" else "Derive"
        advice += " columns from it first, for example the hour, the day of the week, or an age in days."
        return _refusal(name, series, "must not hold dates or times", advice)
    if what == "bytes":
        advice = "Decode them: table[column].str.decode('utf-8'), or read them as an Image."
        return _refusal(name, series, "must not hold bytes", advice)
    if what == "pairs":
        advice = (
            "Read them with their weights, Categorical(..., multi_hot=True, weights=True), or keep the values alone."
        )
        return _refusal(name, series, "must not hold maps, or pairs of values and weights", advice)
    if what == "decimal":
        return _refusal(name, series, "must not hold decimals", "Convert it: table[column].astype(float).")
    types = series.dropna().map(lambda cell: type(cell).__name__).value_counts()
    if len(types) > 1:
        return (
            f"`{name}` must hold values of one type. Received: {types.to_dict()}. "
            "Convert it: table[column].astype(str), or pandas.to_numeric(table[column])."
        )
    return _refusal(name, series, "must hold strings, numbers or booleans", "Convert it.")


def _refusal(name: str, series: pd.Series, fault: str, advice: str) -> str:
    cells = series.dropna()
    sample = check.sample_values(c if isinstance(c, bytes) else str(c) for c in cells.iloc[:6])
    return f"`{name}` {fault}. Received: {len(cells)} rows of dtype {series.dtype}, {sample}. {advice}"
