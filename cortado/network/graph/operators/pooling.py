"""Pooling and resizing: batch and channels pass, spatial axes stay whole."""

from cortado.layers.roles import JOIN, MOVE
from cortado.network.graph.axes.step import Step, Value, for_each
from cortado.network.graph.operators.facts import free, known


def space(step: Step) -> Value:
    """Follow pooling and resizing: batch and channels pass, spatial axes stay whole."""
    x = step.tensor("self") or step.tensor("input")
    assert x is not None
    rank = len(step.shape)
    spatial = 3 if "3d" in step.name or "trilinear" in step.name else 1 if "1d" in step.name else 2
    if "linear1d" in step.name or "nearest1d" in step.name:
        spatial = 1
    if "upsample" in step.name or step.name == "interpolate":
        spatial = rank - 2
    step.freeze(*x.axis_list[rank - spatial :])
    return for_each(step, [*x.axis_list[: rank - spatial], *([None] * spatial)])


OPERATORS = (
    known("max_pool2d", role=MOVE, axes=space, homogeneous=(0,))
    | known("max_pool2d_with_indices", role=MOVE, axes=space, cost=free, homogeneous=(0,))
    | known("max_pool3d adaptive_max_pool1d max_pool1d_with_indices", axes=space)
    | known("max_pool1d max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d", axes=space, cost=free)
    | known("avg_pool1d avg_pool2d", role=JOIN, axes=space, cost=free, homogeneous=(0,))
    | known("_adaptive_avg_pool2d", role=JOIN, cost=free, homogeneous=(0,))
    | known("avg_pool3d adaptive_avg_pool1d", axes=space, cost=free)
    | known("adaptive_avg_pool2d adaptive_avg_pool3d", axes=space)
    | known("upsample_nearest2d", role=MOVE, axes=space, cost=free)
    | known(
        "upsample_nearest1d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
        "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d",
        axes=space, cost=free,
    )
    | known("_upsample_nearest_exact2d grid_sampler", axes=space)
    | known("_adaptive_avg_pool3d fractional_max_pool2d max_unpool2d max_unpool3d", cost=free)
)  # fmt: skip
