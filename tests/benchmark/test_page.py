"""The leaderboard as one page: it needs nothing else, it sorts and filters, and it says what a network is worth."""

import html
import re

import numpy as np
import pandas as pd
import pytest
from browser import browser, missing
from rich.console import Console

from mtl_zoo.benchmark.leaderboard import leaderboard
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.report import markdown, print_report, verdict
from mtl_zoo.benchmark.results import COLUMNS
from mtl_zoo.evaluation import auc

MODELS = {"boosting": 0.0, "constant": None, "mmoe": 1.5, "<b>ple</b>": -1.5}


@pytest.fixture
def kept(tmp_path):
    """A table of results, and a folder of scores: mmoe knows more than boosting, the other network less."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400).astype("float32")
    rows = []
    for number, (model, better) in enumerate(MODELS.items()):
        for seed in (0,) if better is None else (0, 1):
            key = f"{number:02d}{seed:02d}"
            score = np.zeros(400) if better is None else (1.2 + better) * label + rng.normal(size=400)
            arrays = {"click": score[:, None], "label:click": label, "observed:click": np.ones(400)}
            np.savez(tmp_path / f"d-x-seed{seed}-{key}.npz", **arrays)
            value = auc(label, score)
            common = {
                "key": key, "dataset": "d", "variant": "v", "data_version": "1", "model": model,
                "dataset_options": "{}", "split_rule": "at random", "hyperparameters": "{}", "seed": seed, "epochs": 1,
                "batch_size": 8,
                "optimizer": "adam", "balancing": "equal", "parameters": 9, "examples_per_second": 1.0,
                "train_seconds": 1.0, "error": "", "observed": 400, "task": "click", "metric": "auc",
                "space": "impressions", "value": value, "patience": "", "parameter_match": "",
            }  # fmt: skip
            rows += [{**common, "split": split} for split in ("test", "validation")]
    return pd.DataFrame(rows, columns=list(COLUMNS)).fillna({"parameter_match": ""}), tmp_path


def test_gains_are_over_the_best_baseline_with_intervals(kept):
    table, scores = kept
    (section,) = leaderboard(table, scores=scores)
    lines = {line.model: line for line in section.lines}
    assert section.baseline is lines["boosting"] and lines["constant"].title == "constant (baseline)"
    found = {model: line.cells[section.columns[0]] for model, line in lines.items()}
    assert found["boosting"].interval is None and found["mmoe"].gain > 0 > found["<b>ple</b>"].gain
    for model in ("mmoe", "<b>ple</b>", "constant"):
        low, high = found[model].interval
        assert low < found[model].gain < high and (low > 0) == (model == "mmoe")
    assert leaderboard(table)[0].intervals == "" and leaderboard(table)[0].lines[0].cells[section.columns[0]].gain > 0
    weighed = table.assign(value=table["value"] - 0.01 * (table["model"] == "mmoe"))
    (other,) = leaderboard(weighed, scores=scores)
    assert {line.model: line for line in other.lines}["mmoe"].cells[section.columns[0]].interval is None


def test_it_says_whether_a_network_is_worth_it(kept):
    table, scores = kept
    (said,) = verdict(leaderboard(table, scores=scores)[0])
    assert said.startswith("click AUC: mmoe is better than boosting by 0.") and "[+0." in said
    (said,) = verdict(leaderboard(table[table["model"] != "mmoe"], scores=scores)[0])
    assert "every network is worse than boosting" in said
    assert (
        verdict(leaderboard(table[table["model"] != "boosting"].query("model != 'constant'"), scores=scores)[0]) == []
    )
    sections = leaderboard(table, scores=scores)
    assert "- click AUC: mmoe is better" in markdown(sections) and "boosting (baseline)" in markdown(sections)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    print_report(sections, console)
    shown = console.export_text()
    assert "95 %" in shown and "boosting (baseline)" in shown and max(map(len, shown.splitlines())) <= 80


def test_the_page_asks_nothing_of_the_network(kept):
    table, scores = kept
    text = page(leaderboard(table, scores=scores), "my <table>")
    assert "<b>ple" not in text and html.escape("<b>ple</b>") in text and "my &lt;table&gt;" in text
    assert not re.findall(r"(?:src|href|xlink:href)=[\"'](?!#|data:)", text) and "@import" not in text
    assert (
        "url(" not in text.replace("url(#", "") and text.count("<svg") == 3 + 1
    )  # a chart for each gain, one of all models
    assert "default-src 'none'" in text


@pytest.mark.skipif(bool(missing()), reason="needs chromium and chromedriver")
def test_the_page_sorts_and_filters_in_a_browser(kept, tmp_path):
    table, scores = kept
    file = tmp_path / "board.html"
    file.write_text(page(leaderboard(table, scores=scores), "board"), encoding="utf-8")
    names = "return [...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    with browser() as seen:
        seen.open(file.as_uri())
        assert seen.run(names)[0] == "mmoe" and len(seen.run(names)) == 4
        head = "document.querySelectorAll('th')[1]"
        seen.run(f"{head}.click()")
        down = seen.run(names)
        seen.run(f"{head}.click()")
        assert seen.run(names) == down[::-1] and seen.run(f"return {head}.getAttribute('aria-sort')") == "ascending"
        seen.run("document.querySelectorAll('th')[2].click()")
        assert seen.run(names)[-1] == "boosting (baseline)"  # it has no gain
        seen.run("document.getElementById('baseline').click()")
        assert sorted(seen.run(names)) == ["<b>ple</b>", "mmoe"]
        seen.run("const f = document.getElementById('filter'); f.value = 'MM'; f.dispatchEvent(new Event('input'))")
        assert seen.run(names) == ["mmoe"]
        for width in (400, 1400):
            seen.size(width, 900)
            assert seen.run("return document.documentElement.scrollWidth") <= width, "the page is wider than its window"
        assert seen.run("return performance.getEntriesByType('resource').length") == 0
        assert seen.complaints() == []
