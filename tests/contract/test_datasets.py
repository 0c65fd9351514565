"""What every data set gives, on those that are generated: a new one is tested from the line that imports it."""

import numpy as np
import pytest

from mtl_zoo import create_model
from mtl_zoo.datasets import dataset_info, list_datasets, load_dataset
from mtl_zoo.tasks import label_names

GENERATED = [name for name in list_datasets() if not dataset_info(name).reads_files]


def load(name, **options):
    small = {"size": 1000} if "size" in dataset_info(name).options else {}
    return load_dataset(name, **{**small, **options})


@pytest.fixture(scope="module", params=GENERATED)
def data(request):
    return load(request.param)


def rows_of(split):
    columns = [
        np.asarray(a, "float64").reshape(len(split), -1) for a in (*split.inputs.values(), *split.labels.values())
    ]
    return {row.tobytes() for row in np.nan_to_num(np.concatenate(columns, axis=1), nan=-1e9)}


def test_its_source_and_options_are_known(data):
    info = dataset_info(data.name)
    assert info.summary and info.source and info.licence and data.version and data.split_rule
    assert set(data.options) == set(info.options) >= {"seed", "embedding_dim"}


def test_splits_have_the_inputs_and_labels_of_features_and_tasks(data):
    for split in data.splits.values():
        assert set(split.inputs) == {feature.name for feature in data.features}
        assert set(label_names(data.tasks)) <= set(split.labels)
        arrays = (*split.inputs.values(), *split.labels.values(), *split.groups.values())
        assert {len(array) for array in arrays} == {len(split)} and len(split) > 0
        for task in data.tasks:
            assert split.labels[task.name].dtype == np.float32
            assert np.isfinite(split.labels[task.name]).any()


def test_no_row_is_in_two_splits(data):
    train, validation, test = map(rows_of, data.splits.values())
    for one, other in ((train, validation), (train, test), (validation, test)):
        assert len(one & other) <= 0.01 * min(len(one), len(other))


def test_a_seed_gives_the_same_rows_and_another_one_others(data):
    assert rows_of(load(data.name).test) == rows_of(data.test) != rows_of(load(data.name, seed=1).test)


def test_an_unknown_option_is_refused_by_name(data):
    with pytest.raises(TypeError, match="takes only the options of .*Received: no_such_option. Expected: any of"):
        load(data.name, no_such_option=1)


def test_a_model_takes_it(data):
    model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(4,), tower_units=())
    scores = model.predict(data.test.take(8).inputs, verbose=0)
    assert all(len(scores[task.name]) == 8 for task in data.tasks)
