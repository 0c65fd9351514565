"""Each form of a model has its row, and is compared with the model that it was made of."""

import pandas as pd
import pytest

from benchmarks.studies import formats

pytestmark = pytest.mark.tensorflow


@pytest.mark.slow
def test_each_form_has_a_row(tmp_path):
    out = tmp_path / "formats.csv"
    options = ["--train-rows", "3000", "--test-rows", "2000", "--models", "shared_bottom", "--calls", "3"]
    assert formats.main([*options, "--sparsity", "0.9", "--out", str(out)]) == 0
    table = pd.read_csv(out).set_index("form")
    assert len(table) == 1 + len(formats.EXPORTS) + 1 + len(formats.OF_INT8_TABLES) + 2 + 2
    exact = ["keras", "saved_model", "onnx", "litert"]
    assert (table.loc[exact, "largest_difference"] < 1e-5).all() and (table.loc[exact, "auc_lost_click"] < 1e-4).all()
    size = table["bytes"]
    assert size["litert int8"] < size["litert float16"] < size["litert"]
    assert size["int8 tables: onnx"] < size["onnx"] and size["int8 tables: keras"] < size["keras"]
    deflated = table["deflated_bytes"]
    assert deflated["pruned 0.9"] < deflated["trained_further"]
    assert (table["ms_1"] > 0).all() and table["commit"].notna().all()
    formats.main([*options, "--out", str(out)])
    assert len(pd.read_csv(out)) == len(table)  # what is there is not measured again
