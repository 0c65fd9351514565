import keras
import numpy as np
import pytest
from rich.console import Console

from mtl_zoo import DSelectK, create_model
from mtl_zoo.benchmark import plots, runner
from mtl_zoo.benchmark.demo import demo_configs, mean_gates, run_demo, stitch_matrices
from mtl_zoo.benchmark.results import ResultStore

pytestmark = pytest.mark.usefixtures("untraced")


def test_gates_and_stitches_of_models(small):
    mmoe = create_model("mmoe", small.features, small.tasks, num_experts=3, expert_units=(4,))
    gates = mean_gates(mmoe, small.test.take(100))
    assert list(gates) == ["click", "conversion"]
    read = keras.Model(mmoe.input, mmoe.get_layer("click_gate").output)
    weights = read.predict(small.test.take(100).inputs, verbose=0)
    np.testing.assert_allclose(gates["click"], weights.mean(axis=0), rtol=1e-5)
    sparse = create_model(
        "mmoe", small.features, small.tasks, num_experts=4, expert_units=(4,), gate=DSelectK(num_selected=2)
    )
    assert mean_gates(sparse, small.test.take(100))["conversion"].sum() == pytest.approx(1, abs=1e-5)
    stitched = create_model("cross_stitch", small.features, small.tasks, bottom_units=(4, 4), per_channel=True)
    matrices = stitch_matrices(stitched)
    assert list(matrices) == ["stitch_0", "stitch_1"]
    np.testing.assert_allclose(matrices["stitch_0"], [[0.9, 0.1], [0.1, 0.9]], atol=1e-6)
    assert mean_gates(stitched, small.test) == {} and stitch_matrices(mmoe) == {}


@pytest.mark.extended
def test_demo_leaves_its_files_and_does_not_repeat_itself(tmp_path, small, monkeypatch):
    monkeypatch.setattr("mtl_zoo.benchmark.command.load", lambda config, data_dir=None: small)
    tiny = {"bottom_units": 4, "tower_units": 4}
    models = {"single_task": tiny, "cross_stitch": tiny, "mmoe": {"num_experts": 2, "expert_units": 4}}
    configs = demo_configs(1, dataset_options={"size": "small"}, epochs=1, batch_size=1000, leave_out=())
    configs = [config for config in configs[:5] if config.model in models]
    for config in configs:
        config.hyperparameters.update(models[config.model])
    console = Console(record=True, width=100, file=open("/dev/null", "w"))
    assert run_demo(tmp_path / "demo", console=console, configs=configs) == 0
    shown = console.export_text()
    assert "share of lift" in shown and "oracle" in shown and "%" in shown
    # fault 26: no terminal is attached, and still each run says that it has begun
    assert all(f"training {model}, seed 0 ..." in shown for model in models)
    assert "over a model for each task" in shown
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"results.csv", "leaderboard.md", "oracle.png", "gates.png", "stitches.png"} <= names
    table = ResultStore(tmp_path / "demo" / "results.csv").read()
    assert table.groupby("model")["seed"].nunique().to_dict() == {"single_task": 1, "cross_stitch": 1, "mmoe": 1}

    def never(*arguments, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(runner, "create_model", never)
    (tmp_path / "demo" / "gates.png").unlink()
    assert run_demo(tmp_path / "demo", console=console, configs=configs) == 0
    assert (tmp_path / "demo" / "gates.png").exists()
    assert "skipped" in console.export_text()


# fault 26
def test_colours_mean_the_same_in_every_panel_and_ticks_are_few(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    plots.draw_gates({"a": {"x": [0.9, 0.1]}, "b": {"x": [0.5, 0.5]}}, tmp_path / "g.png")
    plots.draw_stitches({"a": {"l": [[0.9, 0.1], [0.1, 2.0]], "m": [[1, 0], [0, 1]]}}, ["x", "y"], tmp_path / "s.png")
    for figure in drawn:
        images = [image for axes in figure.axes for image in axes.images]
        assert len(images) == 2 and len({image.get_clim() for image in images}) == 1
        assert len(figure.axes) == 3  # the third is the bar


def test_seeds_are_checked(tmp_path):
    with pytest.raises(ValueError, match="`seeds` must be a whole number >= 1"):
        run_demo(tmp_path / "demo", seeds=0)
