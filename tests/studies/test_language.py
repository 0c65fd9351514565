"""The studies of language models, on a tiny random one."""

import pytest
from language_folders import bert_folder

from benchmarks.studies import encoding_speed, language_memory

pytestmark = pytest.mark.tensorflow


def test_rates_of_both_ways(tmp_path):
    found = encoding_speed.measure(str(bert_folder(tmp_path)), texts=12, batch=4, length=12, rounds=1, seed=0)
    assert set(found) <= set(encoding_speed.COLUMNS)
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"] and found["cached_texts_a_second"] > 0


def test_what_low_rank_updates_save(tmp_path):
    folder = str(bert_folder(tmp_path))
    few = language_memory.measure(folder, "lora", True, batch=4, length=8, rank=2, steps=1)
    all_of_it = language_memory.measure(folder, "full", False, batch=4, length=8, rank=2, steps=1)
    assert set(few) <= set(language_memory.COLUMNS)
    assert few["trained"] < all_of_it["trained"] and few["slots_mb"] <= all_of_it["slots_mb"]
    assert few["peak_mb"] >= few["built_mb"] >= few["start_mb"]
