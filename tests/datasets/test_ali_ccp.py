import gzip
import shutil

import numpy as np
import pytest

from mtl_zoo.datasets import ali_ccp, load_dataset, verify_dataset
from mtl_zoo.datasets._files import cache_folder
from mtl_zoo.datasets.ali_ccp import FIELDS, parse_raw

COMMON = FIELDS[:9]


def features(pairs):
    return "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in pairs)


def write_raw(folder, part, rows=400, seed=0):
    """Files of the raw format: users' features in the common file, items' in the skeleton, lists among them."""
    rng = np.random.default_rng(seed)
    common = []
    for user in range(20):
        pairs = [(f, 100 + 3 * i + user % 3, "1.0") for i, f in enumerate(COMMON)]
        # A list field, and one whose name holds a used field's name: neither is one of the 18.
        pairs += [("109_14", 7, "2.3"), ("127_14", 9, "0.5"), ("1011", 5, "1.0")]
        common.append(f"common{user},{len(pairs)},{features(pairs)}\n")
    skeleton = []
    for row in range(rows):
        # The first tenth of the rows must hold all kinds, so that every split does.
        click = int(rng.random() < 0.4)
        conversion = int(rng.random() < (0.4 if click else 0.02))
        pairs = [(f, int(rng.integers(1, 4)) + 1000 * i, "1.0") for i, f in enumerate(FIELDS[9:], 1) if f != "508"]
        if row % 2:
            pairs.append(("508", 77, "0.6931"))
        skeleton.append(f"{row},{click},{conversion},common{rng.integers(20)},{len(pairs)},{features(pairs)}\n")
    (folder / f"common_features_{part}.csv").write_text("".join(common))
    (folder / f"sample_skeleton_{part}.csv").write_text("".join(skeleton))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "ali_ccp").mkdir()
    write_raw(tmp_path / "ali_ccp", "train")
    write_raw(tmp_path / "ali_ccp", "test", rows=100, seed=1)
    return tmp_path


def test_parse_joins_both_files_and_drops_conversions_without_click(tmp_path):
    common, skeleton = tmp_path / "c.csv", tmp_path / "s.csv.gz"
    common.write_text(f"k1,2,{features([('101', 31319, '1.0'), ('121', 4, '1.0')])}\n")
    rows = [
        f"1,1,1,k1,2,{features([('301', 9, '1.0'), ('205', 8, '1.0')])}\n",
        f"2,0,1,k1,1,{features([('301', 9, '1.0')])}\r\n",
        f"3,0,0,k1,2,{features([('101', 5, '1.0'), ('210', 6, '1.0')])}\n",
    ]
    skeleton.write_bytes(gzip.compress("".join(rows).encode()))
    parsed = parse_raw(skeleton, common)
    assert parsed.shape == (2, 20) and parsed.dtype == np.int32
    first = dict(zip(("click", "conversion", *FIELDS), parsed[0].tolist(), strict=True))
    given = {"click": 1, "conversion": 1, "101": 31319, "121": 4, "301": 9, "205": 8}
    assert first == dict.fromkeys(first, 0) | given
    # The common file has the last word, as in the published preprocessing.
    assert parsed[1, 2] == 31319
    assert parse_raw(skeleton, common, max_rows=1).shape == (1, 20)


@pytest.mark.parametrize(
    ("common", "skeleton", "text"),
    [
        ("k1\n", "", r"`c.csv` must hold lines of: index, number, features. Received: line 1 of .*c.csv: b'k1"),
        ("k1,0,\n", "1,1,1,k1\n", "`s.csv` must hold lines of: sample id, click, conversion, .*line 1"),
        ("k1,0,\n", "1,1,1,k1,0,\n1,2,0,k1,0,\n", "`s.csv` must hold lines of: sample id, click, .*line 2"),
        ("k1,0,\n", "1,1,1,k2,0,\n", "`s.csv` must hold lines of: an index that c.csv holds"),
        ("k1,0,\n", "", "`s.csv` must hold at least one row"),
    ],
)
def test_breaks_of_the_format_name_file_and_line(tmp_path, common, skeleton, text):
    (tmp_path / "c.csv").write_text(common)
    (tmp_path / "s.csv").write_text(skeleton)
    with pytest.raises(ValueError, match=text):
        parse_raw(tmp_path / "s.csv", tmp_path / "c.csv")


def test_load(folder):
    data = load_dataset("ali_ccp", folder)
    assert [feature.name for feature in data.features] == list(FIELDS)
    assert [(t.name, t.sample_space) for t in data.tasks] == [("click", None), ("conversion", "click")]
    rows = [len(split) for split in data.splits.values()]
    assert 0.05 < rows[1] / (rows[0] + rows[1]) < 0.17 and 90 <= rows[2] <= 100
    for split in data.splits.values():
        assert (split.labels["conversion"] <= split.labels["click"]).all()
    # Half the rows have no 508: missing, and not a value of its own.
    assert set(data.train.inputs["508"]) == {0, 2}
    assert set(data.train.groups["user_id"]) == {100, 101, 102}
    again = load_dataset("ali_ccp", folder, seed=1)
    assert again.version == data.version and "seed 1" in again.split_rule


def test_rare_values_are_unknown(folder):
    path = folder / "ali_ccp" / "sample_skeleton_train.csv"
    rare = [f"{9000 + i},0,0,common0,1,{features([('205', 4242, '1.0')])}\n" for i in range(11)]
    path.write_text(path.read_text() + "".join(rare))
    data = load_dataset("ali_ccp", folder)
    assert next(f for f in data.features if f.name == "205").num_ids == 5
    assert (data.train.inputs["205"] == 1).any()


def test_parsed_rows_are_kept_whole_and_read_again(folder, monkeypatch):
    first = load_dataset("ali_ccp", folder)
    kept = sorted(path.name for path in (cache_folder() / "ali_ccp").iterdir())
    assert kept == [f"parsed-{first.version}-test.npy", f"parsed-{first.version}-train.npy"]

    def refuse(*args):
        raise AssertionError("parsed again")

    monkeypatch.setattr(ali_ccp, "parse_raw", refuse)
    second = load_dataset("ali_ccp", folder)
    np.testing.assert_array_equal(first.train.inputs["205"], second.train.inputs["205"])
    with pytest.raises(AssertionError, match=r"parsed again"):
        load_dataset("ali_ccp", folder, cache=False)


def test_a_cache_that_cannot_be_written_is_no_error(folder, caplog):
    (folder / "cache").write_bytes(b"")  # a file where the folder should be
    assert len(load_dataset("ali_ccp", folder, max_rows=None).train)
    assert "were not kept" in caplog.text


def test_max_rows(folder):
    data = load_dataset("ali_ccp", folder, max_rows=50)
    assert len(data.train) + len(data.validation) == 50 and len(data.test) == 50
    assert data.variant == "raw,max_rows=50"
    assert not (folder / "cache").exists()
    with pytest.raises(ValueError, match=r"`max_rows` must be a whole number >= 2"):
        load_dataset("ali_ccp", folder, max_rows=1)
    with pytest.raises(ValueError, match=r"`ali_ccp` must have rows in every split"):
        load_dataset("ali_ccp", folder, max_rows=2, seed=0)


def test_verify_holds_the_published_counts_against_the_files(folder, monkeypatch):
    wrong = [c for c in verify_dataset("ali_ccp", folder) if not c.ok]
    assert wrong[0].what == "train rows" and wrong[0].expected == "42,299,905"
    assert ("ids of field 101", "238,635", "4") in [(c.what, c.expected, c.found) for c in wrong]
    rows = parse_raw(folder / "ali_ccp" / "sample_skeleton_train.csv", folder / "ali_ccp" / "common_features_train.csv")
    found = {"rows": len(rows), "clicks": int(rows[:, 0].sum()), "conversions": int(rows[:, 1].sum())}
    monkeypatch.setattr(ali_ccp, "TRAIN_COUNTS", found)
    checks = {c.what: c.ok for c in verify_dataset("ali_ccp", folder)}
    assert checks["train rows"] and checks["train conversions"] and not checks["test rows"]


def test_published_sizes_cover_the_18_fields():
    assert len(FIELDS) == 18 and ali_ccp.VOCABULARY_SIZES["205"] == 467_298


def test_encoded_csvs(tmp_path):
    folder = tmp_path / "ali_ccp"
    folder.mkdir()
    header = "click,purchase,101,109_14,D508\n"
    for part in ("train", "val", "test"):
        body = "".join(f"{i % 2},{int(i % 4 == 1)},{i % 3},{i % 2},{i / 10}\n" for i in range(12))
        (folder / f"ali_ccp_{part}.csv").write_text(header + body)
    data = load_dataset("ali_ccp", tmp_path, variant="encoded")
    assert {f.name: f.kind for f in data.features} == {"101": "categorical", "109_14": "categorical", "D508": "numeric"}
    assert len(data.train) == 12 and data.train.labels["conversion"].sum() == 3
    (folder / "ali_ccp_test.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"`ali_ccp_test.csv` must have the columns click, purchase, 101 ... Lacks:"):
        load_dataset("ali_ccp", tmp_path, variant="encoded")
    with pytest.raises(FileNotFoundError, match=r"Expected: sample_skeleton_train.csv, common_features_train.csv"):
        load_dataset("ali_ccp", tmp_path)


def test_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"Received: variant='csv'. Expected: one of 'raw', 'encoded'"):
        load_dataset("ali_ccp", tmp_path, variant="csv")


@pytest.mark.real_data
def test_real_samples(data_dir, tmp_path):
    (tmp_path / "ali_ccp").mkdir()
    for part in ("train", "val", "test"):
        name = f"ali_ccp_{part}_sample.csv"
        shutil.copy(data_dir / "samples" / "torch_rechub" / name, tmp_path / "ali_ccp" / name)
    data = load_dataset("ali_ccp", tmp_path, variant="encoded")
    assert [len(split) for split in data.splits.values()] == [100, 50, 50]
    assert len(data.features) == 31
