"""Given up: the orders in which a second method undoes what a state had, without a note, each with the reason.

Those of `PURPOSE` are what the method is for. All others are to be mended: by a form that survives, or by a note.
"""

FACTORIZE = (
    "factorize/cp", "factorize/jaderberg", "factorize/nonlinear", "factorize/predict", "factorize/response", "factorize/svd",
    "factorize/tucker",
)  # fmt: skip
ON_SIGNS = ("factorize/nonlinear", "factorize/predict", "factorize/response", "factorize/svd")
"""On signs of activations, and on linear layers, where the others find no work."""
STARTS_AGAIN = ("rewind", "reinit")
ROUNDS_AFTER_TRAINING = ("quantize/adaround", "quantize/second_order")
MASKS = ("prune/positions", "prune/weights")
CODED = ("codebook", "quantized", "product quantized")
LATENT = ("latent: learned step", "latent: binary", "latent: clipped", "latent: squashed", "latent: ternary")
MASKED_CODES = ("masked(quantized)", "masked(codebook)")

PURPOSE = {
    "release makes plain floats of every form": dict.fromkeys(
        (*CODED, *LATENT, *MASKED_CODES, "masked", "low rank", "signs of activations", "tied weights"), ("release",)
    ),
    "weights start again from their first floats, which no code, codebook or factor holds": {
        **dict.fromkeys((*CODED, *LATENT, *MASKED_CODES, "signs of activations"), STARTS_AGAIN),
        "low rank": ("rewind",),
    },
}

SILENT = {
    "factors are plain floats: what was rounded, shared or dropped is so no more": {
        **dict.fromkeys((*CODED, *LATENT, *MASKED_CODES, "masked"), FACTORIZE),
        **dict.fromkeys(("signs of activations", "tied weights"), ON_SIGNS),
    },
    "a form that can drop no entry becomes a mask over plain floats": {
        "product quantized": MASKS,
    },
    "zeros are codes of the new grid, and the mask goes": dict.fromkeys(MASKED_CODES, ROUNDS_AFTER_TRAINING),
    "zeros are codes of one plane, which counts more bits than the mask did": {
        "masked(codebook)": ("prune/rate_distortion",),
        "latent: ternary": ("prune/rate_distortion",),
    },
    "the new grid has more bits than the values that were there need": {
        "codebook": (*ROUNDS_AFTER_TRAINING, "quantize/pact", "quantize/weights"),
        "masked(codebook)": ("quantize/pact", "quantize/weights"),
        "latent: clipped": ("quantize/weights",),
        "latent: ternary": (
            *ROUNDS_AFTER_TRAINING, "quantize/aware", "quantize/dorefa", "quantize/pact", "quantize/weights",
        ),
    },
    "the new codebook has more bits than the grid or the codebook that was there": {
        "codebook": ("share/products",),
        "quantized": ("share/kmeans", "share/products"),
        "latent: learned step": ("quantize/clip", "share/kmeans", "share/products"),
        "latent: binary": ("quantize/clip", "share/products"),
        "latent: clipped": ("share/products",),
        "latent: squashed": ("quantize/clip", "share/products"),
        "latent: ternary": ("quantize/clip", "share/kmeans", "share/products"),
        "signs of activations": ("quantize/clip", "share/kmeans", "share/products"),
    },
    "activations are rounded to more bits than before": {
        "latent: learned step": ("quantize/activations", "quantize/ptq_search"),
        "latent: squashed": ("quantize/activations", "quantize/aware", "quantize/pact", "quantize/ptq_search"),
        "signs of activations": (
            "quantize/activations", "quantize/aware", "quantize/compact_binary", "quantize/dorefa", "quantize/pact",
            "quantize/ptq_search",
        ),
    },
    "the statistics of a folded norm are trained again, or take the moments that are given back": {
        "a folded norm": (
            *FACTORIZE, *MASKS, *ROUNDS_AFTER_TRAINING, *STARTS_AGAIN, "distill/logits", "finetune", "match_moments",
            "prune/channels", "prune/rate_distortion", "quantize/activations", "quantize/aware", "quantize/binary_connect",
            "quantize/binary_net", "quantize/clip", "quantize/compact_binary", "quantize/dorefa", "quantize/pact",
            "quantize/ternary", "quantize/weights", "quantize/xnor", "share/kmeans", "share/products",
        ),
    },
}  # fmt: skip

GIVEN_UP = {
    (state, method): reason
    for table in (PURPOSE, SILENT)
    for reason, states in table.items()
    for state, methods in states.items()
    for method in methods
}

IDLE = {
    "finalize": ("dense", "masked", "low rank", *CODED, *MASKED_CODES, "a cut", "a removed block", "an activation quantizer",
                 "a folded norm", "tied weights"),
    "prune/units": ("dense", "codebook", "low rank", "product quantized", "a cut", "an activation quantizer", "a folded norm"),
    "release": ("dense", "a cut", "a removed block", "an activation quantizer", "a folded norm"),
    "prune/weights": ("masked", *MASKED_CODES, "tied weights"),
    "quantize/equalize": ("masked", "low rank", *CODED, *LATENT, *MASKED_CODES, "an activation quantizer"),
    "share/kmeans": ("codebook", *MASKED_CODES),
    "quantize/binary_connect": ("latent: binary",),
    "quantize/clip": ("latent: clipped",),
    "quantize/ternary": ("latent: ternary",),
    "prune/blocks": ("a removed block",),
    "quantize/activations": ("an activation quantizer",),
    "quantize/xnor": ("signs of activations",),
    "simplify/norms": ("a folded norm",),
}  # fmt: skip
"""The states in which a method finds nothing to do: what it would make is there, nothing is to be ended, sorted or scaled."""
