import dataclasses
import gzip

import numpy as np
import pytest

from mtl_zoo.datasets import census_income as census
from mtl_zoo.datasets import load_dataset, verify_dataset

ROW = {
    "class_worker": "Private",
    "education": "High school graduate",
    "marital_stat": "Never married",
    "hisp_origin": "NA",
    "citizenship": "Foreign born- Not a citizen of U S ",
    "mig_chg_msa": "?",
    "instance_weight": "1032.38",
    "income_50k": "- 50000.",
}


def make_rows(count, seed):
    """Rows of the official format: a space after each comma, a full stop at the end, values that end in a space."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        row = {c: str(rng.integers(5)) for c in census.COLUMNS} | ROW
        row["sex"] = ("Male", "Female")[rng.integers(2)]
        row["education"] = ("Children", *census.COLLEGE[:2])[rng.integers(3)]
        row["marital_stat"] = ("Never married", "Divorced")[rng.integers(2)]
        row["income_50k"] = census.INCOMES[int(i % 5 == 0)]
        rows.append(row)
    return rows


def as_official(rows):
    return "".join(", ".join(row[c] for c in census.COLUMNS) + "\n" for row in rows).encode()


def as_nominal(rows):
    columns = [*census.NOMINAL, "income_50k"]
    return "".join(",".join(line) + "\n" for line in [columns, *([r[c] for c in columns] for r in rows)]).encode()


def expectations(rows, file):
    positives = {
        "income": sum(r["income_50k"] == "50000+." for r in rows),
        "never_married": sum(r["marital_stat"] == "Never married" for r in rows),
        "college": sum(r["education"] in census.COLLEGE for r in rows),
    }
    return dataclasses.replace(file, rows=len(rows), positives=positives, sha256=None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    train, test = make_rows(120, 0), make_rows(80, 1)
    folder = tmp_path / "census_income_kdd"
    folder.mkdir()
    (folder / "census-income.data").write_bytes(as_official(train))
    (folder / "census-income.test.gz").write_bytes(gzip.compress(as_official(test)))
    (folder / "census-income.train.nominal.csv").write_bytes(as_nominal(train))
    monkeypatch.setattr(census, "TRAIN", expectations(train, census.TRAIN))
    monkeypatch.setattr(census, "NOMINAL_TRAIN", expectations(train, census.NOMINAL_TRAIN))
    monkeypatch.setattr(census, "TEST", expectations(test, census.TEST))
    return tmp_path


def test_columns_are_the_official_42():
    assert len(census.COLUMNS) == len(set(census.COLUMNS)) == 42
    assert len(census.CONTINUOUS) == 7 and len(census.NOMINAL) == 33


def test_full(folder):
    data = load_dataset("census_income", folder)
    assert [len(split) for split in data.splits.values()] == [120, 40, 40]
    assert [task.name for task in data.tasks] == ["income", "never_married"]
    names = {feature.name for feature in data.features}
    assert names == set(census.COLUMNS) - {"income_50k", "marital_stat", "instance_weight"}
    kinds = {feature.name: feature.kind for feature in data.features}
    assert {name for name, kind in kinds.items() if kind == "numeric"} == set(census.CONTINUOUS)
    assert data.train.labels["income"].mean() == pytest.approx(0.2)
    assert data.train.weights is None
    assert data.notes == ("removed from the inputs: instance_weight, income_50k, marital_stat",)


def test_question_mark_na_and_trailing_spaces_are_values(folder):
    data = load_dataset("census_income", folder)
    for name in ("mig_chg_msa", "hisp_origin", "citizenship"):
        assert set(data.train.inputs[name]) == {2}
        assert set(data.test.inputs[name]) == {2}


def test_nominal_reads_the_same_rows_without_the_continuous_columns(folder):
    full, nominal = load_dataset("census_income", folder), load_dataset("census_income", folder, variant="nominal")
    names = {feature.name for feature in nominal.features}
    assert names == {feature.name for feature in full.features} - set(census.CONTINUOUS)
    for name in names:
        np.testing.assert_array_equal(full.test.inputs[name], nominal.test.inputs[name])
        np.testing.assert_array_equal(full.train.inputs[name], nominal.train.inputs[name])
    assert full.version != nominal.version and "does not compare with published results" in nominal.notes[1]


def test_group_two_and_test_file(folder):
    data = load_dataset("census_income", folder, variant="test_file", group=2)
    assert [len(split) for split in data.splits.values()] == [48, 16, 16]
    assert [task.name for task in data.tasks] == ["college", "never_married"]
    assert not {"education", "marital_stat", "income_50k", "instance_weight"} & {f.name for f in data.features}
    assert data.variant == "test_file,group=2"


def test_the_seed_moves_the_split_and_nothing_else(folder):
    one, same, other = (load_dataset("census_income", folder, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test.inputs["age"], same.test.inputs["age"])
    assert (one.test.inputs["age"] != other.test.inputs["age"]).any()
    np.testing.assert_array_equal(one.train.inputs["age"], other.train.inputs["age"])
    both = [np.concatenate([d.validation.inputs["age"], d.test.inputs["age"]]) for d in (one, other)]
    np.testing.assert_array_equal(np.sort(both[0]), np.sort(both[1]))
    assert one.version == other.version and "seed 2" in other.split_rule


def test_verify(folder):
    checks = verify_dataset("census_income", folder)
    assert len(checks) == 12 and all(c.ok for c in checks)
    path = folder / "census_income_kdd" / "census-income.data"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    wrong = [c for c in verify_dataset("census_income", folder) if not c.ok]
    assert (wrong[0].what, wrong[0].expected, wrong[0].found) == ("census-income.data rows", "120", "119")
    with pytest.raises(
        ValueError, match=r"`rows of census-income.data` must be that of the official files. Received: 119"
    ):
        load_dataset("census_income", folder)


def test_altered_label_counts(folder):
    path = folder / "census_income_kdd" / "census-income.data"
    path.write_bytes(path.read_bytes().replace(b"50000+.", b"- 50000.", 1))
    with pytest.raises(
        ValueError, match=r"`rows of census-income.data with income = 1` must be .*Received: 23. Expected: 24"
    ):
        load_dataset("census_income", folder)


def test_files_that_are_something_else(folder):
    path = folder / "census_income_kdd" / "census-income.data"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"50000+.", b">50K"))
    with pytest.raises(
        ValueError, match=r"`income_50k` must be one of the official values. Received 1 others: \['>50K'\]"
    ):
        load_dataset("census_income", folder)
    path.write_bytes(b"<html>not found</html>\n" * 3)
    with pytest.raises(ValueError, match=r"`census-income.data` must have the 42 comma-separated columns"):
        load_dataset("census_income", folder)


def test_a_missing_variant_points_to_the_one_that_is_there(folder):
    (folder / "census_income_kdd" / "census-income.data").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"There is census-income.train.nominal.csv, which variant='nominal' reads"
    ):
        load_dataset("census_income", folder)
    (folder / "census_income_kdd" / "census-income.train.nominal.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not among the official ones: use variant='full'"):
        load_dataset("census_income", folder, variant="nominal")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"variant": "adult"}, "Received: variant='adult'. Expected: one of 'full', 'nominal', 'test_file'"),
        ({"group": 3}, "Received: group=3. Expected: one of 1, 2"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        load_dataset("census_income", **options)


@pytest.mark.extended
@pytest.mark.real_data
def test_real_files(data_dir):
    assert all(c.ok for c in verify_dataset("census_income", data_dir))
    data = load_dataset("census_income", data_dir, variant="nominal")
    assert [len(split) for split in data.splits.values()] == [199_523, 49_881, 49_881]
    labels = data.train.labels
    assert labels["income"].mean() == pytest.approx(0.062, abs=5e-4)
    assert labels["never_married"].mean() == pytest.approx(0.434, abs=1e-3)
    sizes = {feature.name: feature.num_ids - 2 for feature in data.features}
    # The numbers of distinct values that census-income.names states.
    assert (sizes["state_prev_res"], sizes["det_hh_fam_stat"], sizes["det_occ_code"], sizes["year"]) == (51, 38, 47, 2)
    assert all((ids > 0).all() for ids in data.train.inputs.values())
    second = load_dataset("census_income", data_dir, variant="test_file", group=2)
    assert second.train.labels["college"].mean() == pytest.approx(0.336, abs=5e-3)
    assert len(second.features) == 38
