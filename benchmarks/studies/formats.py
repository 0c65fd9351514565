"""What each form of a model costs and loses: size, latency, the largest difference in a score, and AUC.

    python -m benchmarks.studies.formats --out benchmarks/results/recommend/formats.csv

Each model is trained on `synthetic_funnel` and then exported, quantized, pruned and distilled; a row is one form of one
model. Differences are to the scores of the trained model on the test rows, and so are AUCs lost. Pruned models are
trained one epoch further, so `trained_further` says what that alone does; a student that learns from labels alone says
what the teacher adds. Latencies are medians of calls in this process, with the threads that each runtime takes by
itself, on 1 and on 1,000 rows of encoded inputs.
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies import _frame as frame
from mtl_zoo.datasets import Dataset, load_dataset
from mtl_zoo.export import export, load_exported, make_scorer, quantize
from mtl_zoo.metrics.exact import auc
from mtl_zoo.models import create_model
from mtl_zoo.training import distill, prune

COLUMNS = (
    *("model", "form", "data", "seed", "train_rows", "test_rows", "epochs", "parameters"),
    *("bytes", "deflated_bytes", "ms_1", "ms_1000", "largest_difference", "auc_click", "auc_conversion"),
    *("auc_lost_click", "auc_lost_conversion"),
)
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "saved_model": ("saved_model", {}),
    "onnx": ("onnx", {}),
    "litert": ("litert", {}),
    "litert float16": ("litert", {"weights": "float16"}),
    "litert int8": ("litert", {"weights": "int8"}),
}
OF_INT8_TABLES = ("saved_model", "onnx", "litert")
STUDENT = {"bottom_units": (32,), "tower_units": ()}
Score = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def forms(model: Any, data: Dataset, args: Any, folder: Path) -> Iterator[tuple[str, Any, Score, Path]]:
    """Each form: its name, the model whose weights it has, what scores rows, and the file or folder that holds it."""
    yield "keras", model, make_scorer(model), saved(model, folder / "keras.keras")
    for form, (kind, options) in EXPORTS.items():
        yield form, model, *exported(model, folder / form, kind, options)
    small = quantize(model).model
    yield "int8 tables: keras", small, make_scorer(small), saved(small, folder / "int8.keras")
    for kind in OF_INT8_TABLES:
        yield f"int8 tables: {kind}", small, *exported(small, folder / f"int8 {kind}", kind, {})
    train = data.train.inputs, data.train.labels
    fit = {"batch_size": args.batch_size, "verbose": 0}
    for sparsity in (0.0, *args.sparsity):
        further = copied(model)
        further.compile("auto", metrics=None)
        prune(further, sparsity, *train, **fit)
        form = f"pruned {sparsity}" if sparsity else "trained_further"
        yield form, further, make_scorer(further), saved(further, folder / f"{form}.keras")
    for form in ("student alone", "student distilled"):
        student = made("shared_bottom", data, args, STUDENT)
        if form == "student alone":
            student.fit(*train, epochs=args.epochs, **fit)
        else:
            distill(model, student, *train, temperature=args.temperature, epochs=args.epochs, **fit)
        yield form, student, make_scorer(student), saved(student, folder / f"{form}.keras")


def made(name: str, data: Dataset, args: Any, options: Mapping[str, Any]) -> Any:
    """A model that starts from the seed, compiled."""
    import keras

    keras.utils.set_random_seed(args.seed)
    model = create_model(name, data.features, data.tasks, **options)
    model.compile("auto", metrics=None)
    return model


def copied(model: Any) -> Any:
    """A copy with the same weights, without what training added: no optimizer's state is in its file."""
    copy = model.remade()
    copy.set_weights(model.get_weights())
    return copy


def saved(model: Any, path: Path) -> Path:
    copied(model).save(path)
    return path


def exported(model: Any, folder: Path, kind: str, options: Mapping[str, Any]) -> tuple[Score, Path]:
    export(model, folder, kind, **options)
    return load_exported(folder), folder


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file or of all files of a folder, and what they are deflated."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    with tempfile.TemporaryFile() as packed:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in files:
                archive.write(file)
        return sum(file.stat().st_size for file in files), packed.seek(0, 2)


def median_ms(score: Score, inputs: Mapping[str, np.ndarray], rows: int, calls: int) -> float:
    given = {name: array[:rows] for name, array in inputs.items()}
    found = []
    for i in range(calls + 3):
        started = time.perf_counter()
        score(given)
        if i >= 3:
            found.append(time.perf_counter() - started)
    return round(1e3 * float(np.median(found)), 3)


def measured(model: Any, data: Dataset, args: Any) -> Iterator[dict[str, Any]]:
    """The rows of a trained model."""
    test = data.test
    inputs = {name: np.asarray(array) for name, array in test.inputs.items() if name in model.input}
    clicked = test.labels["click"] == 1
    wanted = model.predict(inputs, batch_size=4096, verbose=0)
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, of, score, path in forms(model, data, args, Path(folder)):
            parts = [score({n: a[i : i + 4096] for n, a in inputs.items()}) for i in range(0, len(clicked), 4096)]
            scores = {name: np.concatenate([part[name] for part in parts])[:, 0] for name in ("click", "conversion")}
            found = {
                "click": auc(test.labels["click"], scores["click"]),
                "conversion": auc(test.labels["conversion"][clicked], scores["conversion"][clicked]),
            }
            first = first or found
            worst = max(float(np.abs(scores[name] - wanted[name][:, 0]).max()) for name in scores)
            size, deflated = sizes(path)
            row: dict[str, Any] = {"form": form, "parameters": of.count_params()}
            row |= {"bytes": size, "deflated_bytes": deflated, "largest_difference": f"{worst:.2g}"}
            row |= {f"ms_{rows}": median_ms(score, inputs, rows, args.calls) for rows in (1, 1000)}
            row |= {f"auc_{name}": round(value, 5) for name, value in found.items()}
            yield row | {f"auc_lost_{name}": round(first[name] - value, 5) for name, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options: dict[str, Any] = {"models": ("shared_bottom", "mmoe", "ple", "esmm"), "train_rows": 100_000}
    options |= {"test_rows": 20_000, "epochs": 1, "batch_size": 256, "seed": 0, "sparsity": (0.5, 0.8, 0.9)}
    options |= {"temperature": 2.0, "calls": 50}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    rows = frame.Rows(args.out, COLUMNS)
    data = load_dataset("synthetic_funnel", size=(args.train_rows, args.test_rows, args.test_rows), seed=args.seed)
    about = {"data": "synthetic_funnel", "seed": args.seed, "train_rows": args.train_rows, "test_rows": args.test_rows}
    for name in args.models:
        if rows.has(model=name, form="student distilled", **about):
            continue
        model = made(name, data, args, {})
        model.fit(data.train.inputs, data.train.labels, batch_size=args.batch_size, epochs=args.epochs, verbose=0)
        for row in measured(model, data, args):
            rows.add({"model": name, **about, "epochs": args.epochs, **row})
    shown = ("model", "form", "bytes", "deflated_bytes", "ms_1", "ms_1000", "largest_difference")
    frame.show(rows.read(), [*shown, "auc_lost_click", "auc_lost_conversion"], "forms of a model")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
