"""Recipes that change shapes: those that were run by python -m bench.recipe_runs, which take minutes to hours each."""

from typing import Any

from bench.recipe_runs import made_before, piece, rows_of

SEEDS = [0]
SHORT = (
    "svd_lenet_300_100",
    "predicting_parameters_lenet_300_100",
    "group_wise_brain_damage_lenet_5",
    "response_vgg_16",
    "nonlinear_vgg_16",
    "jaderberg_scheme_1_vgg_16",
    "jaderberg_scheme_2_vgg_16",
)
LONG = (
    "cp_vgg_16",
    "tucker_vgg_16",
    "unstructured_resnet_20",
    "structured_resnet_20",
    "low_rank_training_resnet_20",
    "structured_sparsity_resnet_20",
    "channels_reconstruction_resnet_56",
    "from_scratch_resnet_56",
    "network_trimming_vgg_16",
    "network_slimming_vgg_16",
    "channels_magnitude_vgg_16",
)
"""Between a quarter of an hour and four hours each on one core."""


def run() -> list[dict[str, Any]]:
    """Every recipe that was run before."""
    return [one for name in (*SHORT, *LONG) if made_before(name) for one in rows_of(name, piece(name))]
