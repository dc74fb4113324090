"""Idle: the states in which a method finds nothing to do: what it would make is there, nothing is to be ended or sorted."""

CODED = ("codebook", "quantized", "product quantized")
LATENT = ("latent: learned step", "latent: binary", "latent: clipped", "latent: squashed", "latent: ternary")
MASKED_CODES = ("masked(quantized)", "masked(codebook)")
IDLE = {
    "finalize": ("dense", "masked", "low rank", *CODED, *MASKED_CODES, "a cut", "a removed block", "an activation quantizer",
                 "a folded norm", "tied weights", "a student"),
    "prune/units": ("dense", "codebook", "low rank", "product quantized", "a cut", "an activation quantizer", "a folded norm",
                    "a student"),
    "release": ("dense", "a cut", "a removed block", "an activation quantizer", "a folded norm", "a student"),
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
