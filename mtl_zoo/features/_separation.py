"""How well a column alone tells a label's 1s from its 0s."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtl_zoo.features._columns import Column


def number_auc(column: Column, rows: np.ndarray, label: np.ndarray) -> float:
    """By the order of its numbers, up or down."""
    numbers = column.numbers()[rows]
    # Whether a number is there at all may give the label away, so missing ones count as lowest, then as highest.
    aucs = [auc(np.nan_to_num(numbers, nan=end), label) for end in (-np.inf, np.inf)]
    return max(*aucs, *(1 - a for a in aucs))


def value_auc(column: Column, rows: np.ndarray, label: np.ndarray) -> float:
    """Rates by value, learned on one half and tried on the other: a value seen once tells nothing."""
    codes = column.cells().codes[rows] + 1
    half = np.random.default_rng(0).integers(0, 2, len(rows)).astype(bool)
    aucs = []
    for tried in (half, ~half):
        if not 0 < label[tried].sum() < tried.sum():
            continue
        learned = ~tried
        prior = label[learned].mean()
        counts = np.bincount(codes[learned], minlength=codes.max() + 1)
        ones = np.bincount(codes[learned], weights=label[learned], minlength=codes.max() + 1)
        aucs.append(auc(((ones + prior) / (counts + 1))[codes[tried]], label[tried]))
    return float(np.mean(aucs)) if aucs else 0.5


def auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Share of (1, 0) pairs of rows that the scores put in order; ties count half."""
    ranks = pd.Series(scores).rank().to_numpy()
    ones = int(label.sum())
    return float((ranks[label].sum() - ones * (ones + 1) / 2) / (ones * (len(label) - ones)))
