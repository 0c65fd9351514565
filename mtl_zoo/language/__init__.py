"""Pretrained language models: from a folder to vectors, a layer of any model, or answers to a question about a row."""

from mtl_zoo.language.feature import LanguageFeature
from mtl_zoo.language.layer import LanguageEncoder, merge_lora
from mtl_zoo.language.model import LanguageModel
from mtl_zoo.language.prompts import PromptScorer

__all__ = ["LanguageEncoder", "LanguageFeature", "LanguageModel", "PromptScorer", "merge_lora"]
