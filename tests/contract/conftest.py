"""What of the contract runs by default: every model is built, trained and copied, and the rest has a sample of them."""

import keras
import pytest
from toys import FAMILIES, FEW

# What takes longest: one model of each family, most of them among the extended tests.
EXPENSIVE = (
    "test_any_model_takes_the_funnel_head",
    "test_saved_model_goes_on_training_identically",
    "test_trains_under_mixed_precision",
    "test_one_to_five_tasks_of_mixed_kinds",
    "test_unobserved_rows_do_not_count",
    "test_predict_gives_scores_in_row_order",
)
# What the base class does alike for every model.
OF_THE_BASE = (
    "test_same_seed_same_result",
    "test_labels_of_shape_batch_and_batch_by_one_are_alike",
    "test_sample_weights_by_row_and_by_task",
    "test_a_typo_is_refused",
    "test_a_wrong_or_forgotten_name_is_refused",
    "test_a_loss_that_is_not_finite_stops_training",
    "test_a_file_of_a_newer_format_is_refused",
    "test_extra_inputs_are_ignored_by_name",
)
GRADIENTS = ("test_every_weight_gets_a_gradient", "test_one_tasks_loss_leaves_the_private_parts_of_others_alone")
# On JAX everything is compiled, and all of the contract takes minutes a model: training is left to one of them, and
# gradients to those of the families that compile in seconds.
ON_JAX = ("test_outputs_are_named_logits", "test_config_makes_the_same_model")
TRAINS_ON_JAX = "shared_bottom"
# Of balancing methods that one of each kind does in a model; what a method makes of losses, all of them do alone.
IN_A_MODEL = (
    "test_fit_lowers_the_losses",
    "test_a_task_without_an_observed_row_is_left_out",
    "test_a_loss_that_is_not_finite_spoils_nothing_else",
)
BALANCED_ON_JAX = ("dwa", "uncertainty", "famo")
DIFFERENTIATED_ON_JAX = tuple(name for name in FAMILIES if name != "mose")


def is_slow(test: str, name: str, count: int | None = None) -> bool:
    if keras.backend.backend() == "tensorflow":
        if (test, count) == ("test_one_to_five_tasks_of_mixed_kinds", 2):
            return True
        return (test in OF_THE_BASE and name not in FEW) or (test in EXPENSIVE and name not in FAMILIES)
    if test == "test_fit_lowers_the_loss":
        return name != TRAINS_ON_JAX
    if test in GRADIENTS:
        return name not in DIFFERENTIATED_ON_JAX
    return test not in ON_JAX


def is_extended(test: str, name: str, count: int | None = None) -> bool:
    return (test in EXPENSIVE or test == "test_fit_lowers_the_loss") and name not in FEW


def named(item) -> dict:
    return {key: value for key, value in item.callspec.params.items() if key in ("name", "count")}


def pytest_collection_modifyitems(items):
    for item in items:
        if "contract/test_models" in item.nodeid:
            if is_slow(item.originalname, **named(item)):
                item.add_marker(pytest.mark.slow)
            elif is_extended(item.originalname, **named(item)):
                item.add_marker(pytest.mark.extended)
        elif keras.backend.backend() != "tensorflow" and item.originalname in IN_A_MODEL:
            if item.callspec.params["name"] not in BALANCED_ON_JAX:
                item.add_marker(pytest.mark.slow)
