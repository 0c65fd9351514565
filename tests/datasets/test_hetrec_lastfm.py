import numpy as np
import pytest
from published import check_same, check_whole, lines, rows_of, write

from mtl_zoo.datasets import hetrec_lastfm, load_dataset, verify_dataset

USERS, ARTISTS = 30, 80


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    listens = [
        (u, int(a), int(rng.integers(1, 5000))) for u in range(2, 2 + USERS) for a in rng.choice(ARTISTS, 20, False)
    ]
    edges = {(u, int(v)) for u in range(2, 2 + USERS) for v in rng.integers(2, 2 + USERS, 3) if u != v}
    edges = sorted(edges | {(v, u) for u, v in edges})
    tags = [
        (u, a, int(rng.integers(1, 9)), 0 if i % 50 == 0 else 1, 1 + i % 12, 2009)
        for i, (u, a, _) in enumerate(listens)
        if i % 3
    ]
    artists = [(a, f'Bj"ork {a}' if a % 2 else f"Sigur Rós {a}", "http://x", "") for a in range(ARTISTS)]
    write(
        tmp_path / "hetrec_lastfm_2k",
        {
            "user_artists.dat.gz": lines(listens, "\t", ("userID", "artistID", "weight")),
            "user_friends.dat": lines(edges, "\t", ("userID", "friendID")),
            "user_taggedartists.dat": lines(tags, "\t", ("userID", "artistID", "tagID", "day", "month", "year")),
            "artists.dat": lines(artists, "\t", ("id", "name", "url", "pictureURL")),
            "tags.dat": lines([(t, f"tag {t}") for t in range(1, 9)], "\t", ("tagID", "tagValue")),
        },
    )
    counts = (len(listens), len(edges), len(tags), ARTISTS, 8)
    monkeypatch.setattr(hetrec_lastfm, "COUNTS", dict(zip(hetrec_lastfm.FILES, counts, strict=True)))
    return tmp_path


def by_hand(data):
    """Pairs (user, artist) where a friend's training row has a listen."""
    train = data.train.raw[data.train.raw["listen"] == 1]
    heard = train.groupby("artist_id")["user_id"].agg(set).to_dict()
    friends = data.tables["friends"].groupby("user_id")["friend_id"].agg(set).to_dict()
    return lambda user, artist: bool(friends.get(user, set()) & heard.get(artist, set()))


@pytest.mark.parametrize("split", ["user", "cold_users"])
def test_labels_are_what_friends_do_in_training_rows(folder, split):
    data = load_dataset("hetrec_lastfm_2k", folder, split=split)
    keys = check_whole(data, "user_id", "artist_id")
    exposed = by_hand(data)
    for part in data.splits.values():
        raw = part.raw
        assert raw["exposed"].tolist() == [
            exposed(*pair) for pair in zip(raw["user_id"], raw["artist_id"], strict=True)
        ]
        np.testing.assert_array_equal(raw["adopted"], raw["exposed"] * raw["listen"])
        assert raw["listen"].mean() == pytest.approx(0.5, abs=0.03)
        assert raw.loc[raw["listen"] == 0, ["plays", "tagged"]].isna().all(axis=None)
        assert 0 < raw["exposed"].mean() < 1
    positives = {
        name: {
            k for k, y in zip(zip(s.raw["user_id"], s.raw["artist_id"], strict=True), s.raw["listen"], strict=True) if y
        }
        for name, s in data.splits.items()
    }
    # A pair drawn for training is none of its listens; one drawn for the test is nobody's.
    assert len(keys["train"]) == len(data.train)
    assert len(positives["train"] | positives["validation"] | positives["test"]) == 20 * USERS
    drawn = keys["test"] - positives["test"]
    assert not drawn & set.union(*positives.values())


def test_features_hold_nothing_of_held_out_tags(folder):
    data = load_dataset("hetrec_lastfm_2k", folder)
    held_out = {
        pair for name in ("validation", "test")
        for pair in zip(*(data.splits[name].raw.query("listen == 1")[c] for c in ("user_id", "artist_id")), strict=True)
    }  # fmt: skip
    tags = data.tables["tag_assignments"]
    assert len(tags) and not set(zip(tags["user_id"], tags["artist_id"], strict=True)) & held_out
    assert tags["date"].isna().any() and tags["date"].notna().any()
    artists = data.entities["artist_id"].set_index("artist_id")
    for artist, rows in tags.groupby("artist_id"):
        counts = rows["tag"].value_counts()
        kept = artists.loc[artist, "tags"]
        assert len(kept) == min(5, len(counts)) and counts[kept[-1]] == counts.max()
    assert artists.loc[3, "name"] == 'Bj"ork 3' and artists.loc[4, "name"] == "Sigur Rós 4"
    assert data.train.inputs["friends"].shape[1] == 20
    shared = {f.name: f.table for f in data.features if f.name in ("user_id", "friends")}
    assert len(set(shared.values())) == 1


def test_without_negatives_rows_are_the_listens(folder):
    data = load_dataset("hetrec_lastfm_2k", folder, negatives=0)
    assert [task.name for task in data.tasks] == ["exposed", "plays", "tagged"]
    rows = rows_of(data)
    assert len(rows) == 20 * USERS and rows["plays"].notna().all()
    assert rows["tagged"].mean() == pytest.approx(2 / 3, abs=0.01)
    listened = {tuple(map(int, line.split("\t")[:2])): int(line.split("\t")[2]) for line in _lines(folder)}
    for user, artist, plays in rows[["user_id", "artist_id", "plays"]].head(20).itertuples(index=False):
        assert plays == pytest.approx(np.log1p(listened[user, artist]), rel=1e-6)


def _lines(folder):
    import gzip

    text = gzip.decompress((folder / "hetrec_lastfm_2k" / "user_artists.dat.gz").read_bytes()).decode()
    return text.splitlines()[1:]


def test_a_seed_gives_the_same_rows(folder):
    check_same(load_dataset("hetrec_lastfm_2k", folder), load_dataset("hetrec_lastfm_2k", folder))
    one, other = (load_dataset("hetrec_lastfm_2k", folder, seed=seed).test.raw for seed in (0, 1))
    assert not one.equals(other)


def test_refuses(folder):
    assert all(c.ok for c in verify_dataset("hetrec_lastfm_2k", folder))
    with pytest.raises(ValueError, match="Received: split='time'"):
        load_dataset("hetrec_lastfm_2k", folder, split="time")
    with pytest.raises(ValueError, match="`negatives` must be a whole number >= 0"):
        load_dataset("hetrec_lastfm_2k", folder, negatives=-1)
    write(folder / "hetrec_lastfm_2k", {"user_friends.dat": lines([(1, 2)], "\t", ("user", "friend"))})
    with pytest.raises(
        ValueError, match="`user_friends.dat` must have the columns userID, friendID. Received: user, fr"
    ):
        load_dataset("hetrec_lastfm_2k", folder)
    write(folder / "hetrec_lastfm_2k", {"user_friends.dat": lines([(1, 2)], "\t", ("userID", "friendID"))})
    with pytest.raises(ValueError, match="`rows of user_friends.dat` must be that of the official files. Received: 1"):
        load_dataset("hetrec_lastfm_2k", folder)


@pytest.mark.extended
@pytest.mark.real_data
def test_real_files(data_dir):
    assert all(c.ok for c in verify_dataset("hetrec_lastfm_2k", data_dir))
    data = load_dataset("hetrec_lastfm_2k", data_dir)
    rows = rows_of(data)
    listens = rows[rows["listen"] == 1]
    assert len(listens) == 92_834 and listens["tagged"].mean() == pytest.approx(0.223, abs=5e-4)
    assert len(data.tables["friends"]) == 25_434 and len(data.entities["user_id"]) == 1_892
    # By all listens 44.2 % have a friend who listens; by training listens alone a tenth fewer.
    assert 0.38 < listens["exposed"].mean() < 0.442
