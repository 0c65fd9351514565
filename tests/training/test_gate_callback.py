"""`GateLogger`: what it writes is read back from the event file."""

import numpy as np
import pytest
from toys import CLICK, CONVERSION, compile_eagerly, inputs, labels

from mtl_zoo import Numeric, create_model, gate_report
from mtl_zoo.training import GateLogger

pytestmark = pytest.mark.tensorflow


def fitted(callback, epochs=1, name="mmoe"):
    options = {"num_experts": 3, "expert_units": (4,)} if name == "mmoe" else {}
    model = compile_eagerly(create_model(name, [Numeric("age")], (CLICK, CONVERSION), **options), "adam")
    model.fit({"age": inputs()["age"]}, labels(), epochs=epochs, verbose=0, callbacks=[callback])
    return model


def test_what_the_report_says_is_in_the_file(tmp_path, events):
    logger = GateLogger(inputs(), tmp_path / "logs")
    model = fitted(logger, epochs=2)
    found = events(tmp_path / "logs")
    report = gate_report(model, inputs())
    expected = {}
    for row in report.gates.itertuples():
        expected[f"gates/{row.gate}/entropy"] = row.entropy
        expected[f"gates/{row.gate}/row_entropy"] = row.row_entropy
    for row in report.table.itertuples():
        expected[f"gates/{row.gate}/weight/{row.expert}"] = row.weight
    (row,) = report.similarity.itertuples()
    expected["gate_similarity/click_gate/conversion_gate/cosine"] = row.cosine
    expected["gate_similarity/click_gate/conversion_gate/overlap"] = row.overlap
    assert {tag: value for (tag, step), value in found.items() if step == 2} == pytest.approx(expected, abs=1e-6)
    assert {step for _, step in found} == {0, 1, 2} == set(logger.reports)
    weights = [found["gates/click_gate/weight/expert_0", step] for step in (0, 1, 2)]
    assert len(set(weights)) == 3, "each epoch is written as it was, not as the last one"
    assert np.isclose(logger.reports[2].table["weight"], report.table["weight"]).all()


def test_every_so_many_epochs(tmp_path, events):
    logger = GateLogger(inputs(), tmp_path / "logs", every=2, batch_size=7)
    fitted(logger, epochs=5)
    assert {step for _, step in events(tmp_path / "logs")} == {0, 2, 4}


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="`every` must be a whole number >= 1"):
        GateLogger(inputs(), tmp_path, every=0)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1"):
        GateLogger(inputs(), tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="`model` must have gates over experts"):
        fitted(GateLogger(inputs(), tmp_path), name="shared_bottom")
