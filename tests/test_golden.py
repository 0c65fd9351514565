"""Every model and balancing method computes what it did at 0.1.0, to 1e-6, save what CHANGELOG.md says has changed."""

import keras
import pytest
from golden_cases import all_cases, compute, differences, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the values are TensorFlow's"),
]


# Faults of 0.1.0 that were mended since; CHANGELOG.md names them.
CHANGED = {
    "balancing:excess_mtl": "nothing is added to the squares of small gradients",
    "model:home": "no normalisation by default, and its epsilon is 1e-5",
    "model:m3oe": "no normalisation by default, and its epsilon is 1e-5",
}


@pytest.mark.parametrize("case", [case for case in all_cases() if case not in CHANGED])
def test_numbers_are_those_of_the_first_release(case):
    kept = read()
    if case not in kept:
        pytest.skip("is newer than the first release")
    wrong = differences(case, kept[case], compute(case))
    assert not wrong, dict(sorted(wrong.items(), key=lambda item: -item[1])[:5])
