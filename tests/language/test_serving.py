"""An exported model with a language model inside takes strings in a process that knows nothing of this package."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from language_folders import bert_folder

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, LanguageModel, SharedBottom, Text, export_serving

pytestmark = pytest.mark.tensorflow

STRINGS = ["a good film", "", "  ", "the DOG! café 好", "bad film", "film " * 9999]
MODELS = os.environ.get("MTL_ZOO_LANGUAGE_MODELS", "")
MINILM = Path(MODELS, "all-MiniLM-L6-v2")


def served_alone(folder, length, tmp_path, **options):
    encoder = LanguageModel(str(folder), max_length=length, cache=False, **options)
    table = pd.DataFrame({"review": [*STRINGS[:5], "a dog"], "user": [1, 2, 3] * 2, "click": [0, 1] * 3})
    features = [Text("review", encoder, dim=4), Categorical("user", dim=2)]
    model = SharedBottom(FeatureTransform(features, BinaryTask("click")).fit(table), bottom_units=(4,), tower_units=())
    wanted = model.predict(pd.DataFrame({"review": STRINGS, "user": [1] * 6}), verbose=0)["click"][:, 0]
    assert len(np.unique(wanted.round(6))) > 3
    export_serving(model, tmp_path / "exported")
    code = f"""
        import sys
        import tensorflow as tf
        import tensorflow_text
        served = tf.saved_model.load({str(tmp_path / "exported")!r})
        assert not {{"mtl_zoo", "keras_hub"}} & {{name.split(".")[0] for name in sys.modules}}
        raw = {{"review": tf.constant({STRINGS!r}), "user": tf.constant([1] * 6, tf.int64)}}
        print(served.score(raw)["click"].numpy()[:, 0].tolist())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.array(eval(done.stdout.strip().splitlines()[-1])), wanted


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_strings_in_scores_out(mode, tmp_path):
    folder = bert_folder(tmp_path / "tiny")
    found, wanted = served_alone(folder, 8, tmp_path, mode=mode)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.exists(), reason="MTL_ZOO_LANGUAGE_MODELS does not hold all-MiniLM-L6-v2")
def test_strings_in_scores_out_with_minilm(tmp_path):
    found, wanted = served_alone(MINILM, 48, tmp_path)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
