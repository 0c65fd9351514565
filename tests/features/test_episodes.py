"""Episodes: which rows they hold, in which order, and what fills them up."""

import numpy as np
import pytest

from mtl_zoo.features import make_episodes

pytestmark = pytest.mark.tensorflow

GROUPS = np.array(["a"] * 9 + ["b"] * 3 + ["c"] * 1 + ["d"] * 2)
ROWS = len(GROUPS)
X, Y = {"row": np.arange(ROWS)}, {"click": np.arange(ROWS) % 2}


def episodes(data):
    """Each episode's rows and which of them have a label, support and query apart."""
    found = []
    for inputs, labels in data:
        rows, seen = inputs["row"].numpy().reshape(-1, 5), ~np.isnan(labels["click"].numpy()).reshape(-1, 5)
        found += [(r[:2][s[:2]], r[2:][s[2:]]) for r, s in zip(rows, seen, strict=True)]
    return found


def made(**options):
    return make_episodes(X, Y, GROUPS, **{"support": 2, "query": 3, "episodes": 2, "seed": 0, **options})


def test_an_episode_holds_distinct_rows_of_one_group():
    found = episodes(made())
    assert sorted(GROUPS[query[0]] for _, query in found) == ["a", "b", "d"]  # of one row nothing can be learned
    for support, query in found:
        rows = [*support, *query]
        assert len(set(rows)) == len(rows) and len(set(GROUPS[rows])) == 1
        size = (GROUPS == GROUPS[query[0]]).sum()
        assert (len(support), len(query)) == (min(2, size - 1), min(3, size - min(2, size - 1)))


def test_labels_are_those_of_the_rows():
    for inputs, labels in made():
        seen = ~np.isnan(labels["click"])
        np.testing.assert_array_equal(labels["click"][seen], inputs["row"].numpy()[seen] % 2)


def test_epochs_differ_and_a_seed_gives_them_again():
    data = made()
    first, second, again = episodes(data), episodes(data), episodes(made())
    flat = [np.concatenate([np.concatenate(e) for e in one]).tolist() for one in (first, second, again)]
    assert flat[0] != flat[1] and flat[0] == flat[2]


def test_with_an_order_an_episode_is_a_run_of_neighbours():
    starts = set()
    data = made(order=-np.arange(ROWS))
    for _ in range(20):
        for support, query in episodes(data):
            rows = np.concatenate([support, query])
            np.testing.assert_array_equal(np.diff(rows), -1)
            starts.add(int(rows[0]))
    assert len([s for s in starts if GROUPS[s] == "a"]) == 5  # 9 rows have five runs of five


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support": 0}, "`support` must"),
        ({"episodes": 0}, "`episodes` must"),
        ({"order": [1, 2]}, "must have the same number of rows. Received: .*'order': 2"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)


def test_groups_of_one_row_and_labels_of_text_are_refused():
    with pytest.raises(ValueError, match="`groups` must hold one with two rows or more. Received: 15 rows"):
        make_episodes(X, Y, np.arange(ROWS))
    with pytest.raises(ValueError, match=r"`labels\['click'\]` must be numbers"):
        make_episodes(X, {"click": np.array(["yes"] * ROWS)}, GROUPS)
