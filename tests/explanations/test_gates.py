"""The experts that a row used."""

import numpy as np
import pandas as pd
import pytest
from toys import build, inputs, numpy_mix, tensor_value

from mtl_zoo import gate_report
from mtl_zoo.explanations import gate_weights


def test_weights_of_rows_are_those_of_the_gates():
    model = build("mmoe")
    found = gate_weights(model, inputs())
    np.testing.assert_allclose(found.T.groupby(level="gate").sum(), 1, atol=1e-5)
    means = gate_report(model, inputs()).table.set_index(["gate", "expert"])["weight"]
    np.testing.assert_allclose(found.mean()[means.index], means, atol=1e-6)
    gate, x = model.get_layer("click_gate"), tensor_value(model, model.get_layer("embedding").output)
    experts = np.eye(3)[None].repeat(len(x), axis=0)  # of which the mixture is the weights
    np.testing.assert_allclose(found["click_gate"], numpy_mix(gate, x, experts), atol=1e-5)


def test_a_model_without_gates_is_refused():
    with pytest.raises(ValueError, match="must have gates over experts"):
        gate_weights(build("shared_bottom"), inputs())
    assert isinstance(gate_weights(build("omoe"), inputs(3)).index, pd.RangeIndex)
