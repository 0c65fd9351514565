import functools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from benchmarks.studies import correlation
from benchmarks.studies.correlation import (
    DIFFERENCE,
    MODELS,
    correlation_configs,
    correlation_findings,
    correlation_losses,
    correlation_markdown,
    verdict,
)
from mtl_zoo.benchmark import runner
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.datasets import load_dataset
from mtl_zoo.models import create_model, parameter_count, parameter_matched

TINY = ["--seeds", "2", "--correlations", "0", "1", "--size", "500", "--epochs", "2", "--m", "2"]


def losses(fall, spreads, seeds=40, noise=0.05):
    """Losses whose logarithm falls by `fall` from correlation 0 to 1, with a spread over seeds by model."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        common, own = rng.normal(), {model: rng.normal() for model in MODELS}
        for at in (0.0, 0.5, 1.0):
            for model, spread in spreads.items():
                log = 0.1 * common + spread * own[model] - fall[model] * at + noise * rng.normal()
                row = {"setting": "s", "seed": seed, "correlation": at, "model": model, "best_epoch": 1}
                rows.append({**row, **dict.fromkeys(("validation", "test", "last_validation"), np.exp(log))})
    return pd.DataFrame(rows)


def value(findings, finding, model, correlation=None):
    rows = findings[(findings["finding"] == finding) & (findings["model"] == model)]
    rows = rows[rows["correlation"].isna() if correlation is None else rows["correlation"] == correlation]
    (row,) = rows.to_dict("records")
    return row


def test_both_models_have_the_paper_s_number_of_weights():
    data = load_dataset("synthetic_regression", size=200)
    mmoe = create_model("mmoe", data.features, data.tasks, **MODELS["mmoe"])
    assert parameter_count(mmoe, "kernels") == 13_056
    own = MODELS["shared_bottom"]
    matched = parameter_matched("shared_bottom", data.features, data.tasks, like=mmoe, count="kernels", **own)
    assert matched.bottom_units == own["bottom_units"] and matched.tower_units == own["tower_units"]


def test_both_models_get_the_same_data_seed_by_seed():
    configs = correlation_configs(3, (0, 0.5))
    assert [config.seeds for config in configs] == [(s,) for s in (0, 1, 2) for _ in range(4)]
    for first, second in zip(configs[::2], configs[1::2], strict=True):
        assert (first.model, second.model) == ("shared_bottom", "mmoe")
        assert first.dataset_options == second.dataset_options
        assert first.dataset_options["seed"] == first.seeds[0]


def test_findings_are_those_that_were_put_in():
    fall, spreads = {"shared_bottom": 0.4, "mmoe": 0.1}, {"shared_bottom": 0.5, "mmoe": 0.2}
    findings = correlation_findings(losses(fall, spreads), resamples=400)
    for model in MODELS:
        slope = value(findings, "slope", model)
        assert slope["low"] < -fall[model] < slope["high"] and slope["seeds"] == 40
        assert value(findings, "std", model)["value"] == pytest.approx(np.hypot(0.1, spreads[model]), rel=0.25)
    assert value(findings, "slope", DIFFERENCE)["low"] > 0.2
    assert value(findings, "std", DIFFERENCE)["high"] < 0 and value(findings, "iqr", DIFFERENCE)["high"] < 0
    assert value(findings, "std", "mmoe", 0.5)["value"] < value(findings, "std", "shared_bottom", 0.5)["value"]
    means = [value(findings, "ln loss", "mmoe", correlation)["value"] for correlation in (0.0, 0.5, 1.0)]
    assert value(findings, "ln loss", "mmoe")["value"] == pytest.approx(np.mean(means))
    assert [sentence.partition(": ")[2].split(" (")[0] for sentence in verdict(findings)] == ["holds"] * 3


def test_the_verdict_goes_by_the_intervals():
    alike = losses({"shared_bottom": 0.0, "mmoe": 0.0}, {"shared_bottom": 0.3, "mmoe": 0.3})
    assert all(": is not seen (" in sentence for sentence in verdict(correlation_findings(alike, resamples=400)))
    against = losses({"shared_bottom": -0.4, "mmoe": 0.0}, {"shared_bottom": 0.2, "mmoe": 0.6})
    assert all(": is contradicted (" in sentence for sentence in verdict(correlation_findings(against, resamples=400)))


def test_seeds_that_lack_a_run_are_left_out():
    table = losses({"shared_bottom": 0.1, "mmoe": 0.1}, {"shared_bottom": 0.1, "mmoe": 0.1}, seeds=5)
    findings = correlation_findings(table.iloc[:-1], resamples=50)
    assert set(findings["seeds"]) == {4}
    with pytest.raises(ValueError, match="`losses` must hold at least 2 seeds with all their runs. Received: 1 such"):
        correlation_findings(table[table["seed"] == 0])
    with pytest.raises(ValueError, match=r"`losses` must be of one setting. Received: \['s', 't'\]"):
        correlation_findings(pd.concat([table, table.assign(setting="t")]))


def test_losses_are_those_of_the_rows(tmp_path):
    (config,) = correlation_configs(1, (0, 0.5), size=500, epochs=2, m=2, batch_size=128)[2:3]
    store = ResultStore(tmp_path / "r.csv")
    assert runner.run_config(config, store).finished == 1
    table = store.read()
    (row,) = correlation_losses(table).to_dict("records")
    assert (row["seed"], row["correlation"], row["model"]) == (0, 0.5, "shared_bottom")
    assert row["setting"].startswith("c=1.0, m=2, d=100, size=500, epochs=2, batch_size=128, optimizer=adam(")

    def found(split, metric):
        return table[(table["split"] == split) & (table["metric"] == metric)].sort_values("task")["value"].to_numpy()

    assert row["test"] == pytest.approx(np.mean(found("test", "rmse") ** 2))
    deviation = found("validation", "rmse") / found("validation", "nrmse")
    assert row["last_validation"] == pytest.approx(np.mean(((1 - found("validation", "last_score")) * deviation) ** 2))
    assert row["last_validation"] >= row["validation"] * 0.999
    assert correlation_losses(table.assign(error="x")).empty


def test_the_command_leaves_rows_tables_and_a_picture_and_goes_on(tmp_path, capsys, monkeypatch):
    trained = []

    def train(config, dataset, arguments, seed, about, **more):
        trained.append(seed)
        loss = {"shared_bottom": 3.0, "mmoe": 2.0}[config.model] + seed - config.dataset_options["correlation"]
        metrics = {"rmse": loss**0.5, "nrmse": loss**0.5, "last_score": 1 - loss**0.5}
        common = {**about, "best_epoch": 2, "space": "impressions"}
        rows = [
            {**common, "split": split, "task": task, "metric": metric, "value": value}
            for split in ("validation", "test") for task in ("y1", "y2") for metric, value in metrics.items()
        ]  # fmt: skip
        return rows, {"y1": loss}, 1.0

    monkeypatch.setattr(runner, "_train", train)
    quick = functools.partial(correlation.bootstrap_interval, resamples=50)
    monkeypatch.setattr(correlation, "bootstrap_interval", quick)
    out = ["--out", str(tmp_path / "r.csv")]
    assert correlation.main([*TINY, *out]) == 0
    assert trained == [0] * 4 + [1] * 4
    shown = capsys.readouterr().out
    assert "Shared-bottom's loss falls as the correlation rises: holds" in shown and "| slope | all | mmoe |" in shown
    extra = ["--markdown", str(tmp_path / "r.md"), "--picture", str(tmp_path / "r.png")]
    assert correlation.main([*TINY, *out, *extra]) == 0 and len(trained) == 8
    losses = correlation_losses(ResultStore(tmp_path / "r.csv").read())
    assert (tmp_path / "r.md").read_text() == correlation_markdown(losses)
    assert "| 0 | shared_bottom | 3.5000 | 3.2500 .. 3.7500 | 2 |" in correlation_markdown(losses)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert correlation.main([*TINY, *out, "--report-only"]) == 0


def test_captions_of_the_picture_are_whole(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(correlation, "save_figure", lambda figure, path: drawn.append(figure))
    found = losses({"shared_bottom": 1.0, "mmoe": 1.0}, {"shared_bottom": 1.0, "mmoe": 1.0}, seeds=2)
    setting = "c=1.0, m=10, d=100, size=50000, epochs=12, batch_size=128, optimizer=adam(learning_rate=0.001)"
    found = pd.concat([found.assign(setting=setting), found.assign(setting=setting.replace("c=1.0", "c=0.3"))])
    correlation.draw_correlations(found, tmp_path / "r.png")
    (figure,) = drawn
    figure.canvas.draw()
    captions = [text for text in figure.findobj(Text) if setting[5:] in text.get_text()]
    assert [text.get_text()[:5] for text in captions] == ["c=1.0", "c=0.3"]
    for box in (text.get_window_extent() for text in captions):
        assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1 and figure.bbox.y0 < box.y0
