"""Pairs that did not happen, drawn beside those that did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

_ROUNDS = 20


def pair_keys(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """One int64 for each pair of codes below 2^31."""
    return users.astype("int64") << 32 | items.astype("int64")


def sorted_keys(*keys: np.ndarray) -> np.ndarray:
    """All keys once, sorted. NumPy's own `unique` hashes by the low bits, in which such keys are alike."""
    every = np.sort(np.concatenate(keys))
    return every[np.concatenate([[True], every[1:] != every[:-1]])] if len(every) else every


def are_among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether each key is one of the `known`, which are sorted."""
    if not len(known):
        return np.zeros(len(keys), bool)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def draw_pairs(
    users: np.ndarray, propose: Callable[[np.ndarray, np.random.Generator], np.ndarray], known: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `users` an item that makes no known pair, and no pair twice.

    Args:
        users: Codes of users, one for each pair that is wanted.
        propose: `propose(users, rng)`: an item for each; called again for those whose pair is taken.
        known: Keys of the pairs that may not be drawn.
        seed: Of the draws.

    Returns:
        Users and items of the pairs. Of a user who has seen nearly everything there may be fewer than wanted.
    """
    rng = np.random.default_rng(seed)
    taken = sorted_keys(known)
    found_users, found_items = [], []
    for _ in range(_ROUNDS):
        if not len(users):
            break
        items = propose(users, rng)
        keys = pair_keys(users, items)
        free = ~are_among(keys, taken) & ~pd.Series(keys).duplicated().to_numpy()
        found_users.append(users[free])
        found_items.append(items[free])
        taken = sorted_keys(taken, keys[free])
        users = users[~free]
    empty = np.empty(0, "int64")
    return np.concatenate([empty, *found_users]), np.concatenate([empty, *found_items])


def with_negatives(
    tables: dict[str, pd.DataFrame], negatives: int, seed: int, *, user: str, item: str, label: str
) -> dict[str, pd.DataFrame]:
    """Each split with `negatives` pairs beside each of its own, whose `label` is 0 (1 for its own rows).

    Items are drawn as often as the training rows hold them, so that how popular an item is gives nothing away. Pairs
    of training avoid those of training alone: what is held out must not show by what was not drawn. Pairs of validation
    and test avoid all. Columns other than the three are missing in drawn rows.
    """
    every = pd.concat([table[[user, item]] for table in tables.values()], ignore_index=True)
    user_codes, user_names = pd.factorize(every[user], sort=True)
    item_codes, item_names = pd.factorize(every[item], sort=True)
    keys = pair_keys(user_codes, item_codes)
    ends = np.cumsum([len(table) for table in tables.values()])
    popular = item_codes[: ends[0]]
    made = {}
    for place, (name, table) in enumerate(tables.items()):
        own = user_codes[ends[place] - len(table) : ends[place]]
        known = keys[: ends[0]] if place == 0 else keys
        users, items = draw_pairs(
            np.repeat(own, negatives),
            lambda wanted, rng: popular[rng.integers(len(popular), size=len(wanted))],
            known,
            seed + place,
        )
        # Held-out pairs avoid those drawn before, so that no pair is in two splits.
        keys = np.concatenate([keys, pair_keys(users, items)])
        drawn = pd.DataFrame({user: user_names[users], item: item_names[items], label: np.float32(0)})
        made[name] = pd.concat([table.assign(**{label: np.float32(1)}), drawn], ignore_index=True)
    return made
