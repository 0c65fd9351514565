"""`keras.distribution.DataParallel` on two host devices trains to the weights of one. In processes of their own."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("jax")

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import jax, keras, numpy as np
    import cluster_case
    from contextlib import nullcontext

    devices, case = int(sys.argv[1]), json.loads(sys.argv[2])
    assert len(jax.devices()) == 2
    if devices == 2:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))

    class OneDevice:
        scope = nullcontext

    model = cluster_case.make_model(OneDevice, case)
    x, y = cluster_case.data(64)
    history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    spread = {len(w.value.sharding.device_set) for w in model.weights}
    weights = [np.asarray(w).tolist() for w in model.weights]
    print(json.dumps({"weights": weights, "losses": history["like_loss"], "devices": sorted(spread)}))
    """
)


def train(devices, case):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", SCRIPT, str(devices), json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "auto"])
def test_two_host_devices_equal_one(optimizer):
    case = {"optimizer": optimizer, "balancing": "rlw"}
    one, two = train(1, case), train(2, case)
    assert one["devices"] == [1] and two["devices"] == [2]
    for a, b in zip(one["weights"], two["weights"], strict=True):
        assert np.abs(np.subtract(a, b)).max() <= 1e-5 * max(np.abs(a).max(), 1e-3)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
