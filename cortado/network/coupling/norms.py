"""Norms, reductions and look-ups: operators that mix, remove or pick the entries of an axis."""

import numpy as np

from cortado.network.coupling.moves import AxisList
from cortado.network.coupling.step import Step, Value


def batch_norm(step: Step) -> Value:
    """Follow axis 1, which has the parameters and statistics; batch statistics mix the other axes."""
    x = step.tensor("input")
    assert x is not None
    for name in ("weight", "bias", "running_mean", "running_var"):
        given = step.tensor(name)
        if given is not None:
            step.join(x.axis_list[1], given.axis_list[0])
    if step.arg("training") or step.arg("use_input_stats"):
        step.inexact(*x.axis_list[2:], *(x.axis_list[:1] if step.name == "batch_norm" else []))
    return x.axis_list


def layer_norm(step: Step) -> Value:
    """Follow the trailing axes, which have the parameters and where each entry affects the others."""
    x = step.tensor("input")
    assert x is not None
    count = len(step.arg("normalized_shape"))
    for name in ("weight", "bias"):
        given = step.tensor(name)
        if given is not None:
            for mine, theirs in zip(x.axis_list[-count:], given.axis_list, strict=True):
                if mine is not None or theirs is not None:
                    step.join(mine, theirs)
    step.inexact(*x.axis_list[-count:])
    return x.axis_list


def group_norm(step: Step) -> Value:
    """Follow axis 1 as (group, inner): whole groups can be cut; single channels affect the others of their group."""
    x, groups = step.tensor("input"), int(step.arg("num_groups"))
    assert x is not None
    channels = x.shape[1]
    for name in ("weight", "bias"):
        given = step.tensor(name)
        if given is not None:
            step.join(x.axis_list[1], given.axis_list[0])
    if groups == 1:
        step.inexact(x.axis_list[1])
    elif groups == channels:
        step.counts("num_groups", x.axis_list[1])
    elif groups < channels and x.axis_list[1] is not None:
        inner = step.variables.fresh(channels // groups)
        outer = step.variables.fresh(groups)
        step.counts("num_groups", outer)
        step.join(x.axis_list[1], np.concatenate([np.repeat(outer, len(inner), 0), np.tile(inner, (groups, 1))], 1))
        step.inexact(inner)
    return x.axis_list


def reduction(step: Step) -> Value:
    """Drop the reduced axes; all reductions but sums change when zero entries are removed."""
    x = step.tensor("self") or step.tensor("input")
    assert x is not None
    wanted = step.arg("dim")
    if wanted is None or wanted == []:
        places = set(range(len(x)))
    else:
        places = {d % max(1, len(x)) for d in (wanted if isinstance(wanted, (list, tuple)) else [wanted])}
    gone = [axis for place, axis in enumerate(x.axis_list) if place in places]
    if step.name in ("argmax", "argmin", "median", "mode", "kthvalue", "topk", "sort"):
        step.freeze(*gone)
    elif step.name != "sum":
        step.inexact(*gone)
    keep = bool(step.arg("keepdim"))
    return for_each(
        step, [None if p in places else axis for p, axis in enumerate(x.axis_list) if keep or p not in places]
    )


def along_one(step: Step) -> Value:
    """Keep one axis whole, on which every entry depends on the others."""
    x = step.tensor("self") or step.tensor("input")
    assert x is not None
    dim = int(step.arg("dim", -1)) % max(1, len(x))
    step.freeze(x.axis_list[dim])
    return for_each(step, [None if place == dim else axis for place, axis in enumerate(x.axis_list)])


def for_each(step: Step, out: AxisList) -> Value:
    """Return the axes of an operator's only output, or of each of several."""
    several = isinstance(step.node.meta.get("val"), (tuple, list))
    return [list(out) for _ in step.node.meta["val"]] if several else out


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


def embedding(step: Step) -> Value:
    """Follow weight (symbols, width) at indices (...): the width passes."""
    weight, indices = step.tensor("weight"), step.tensor("indices")
    assert weight is not None and indices is not None
    step.keep_whole(weight.axis_list[0])
    step.freeze(*indices.axis_list)
    step.role(weight, 1, "producer")
    return [*([None] * len(indices)), weight.axis_list[1]]


def index(step: Step) -> Value:
    """Follow x[i, :, j ...]: indexed axes stay whole, the others pass."""
    x = step.tensor("self")
    assert x is not None
    given = list(step.arg("indices"))
    given += [None] * (len(x) - len(given))
    places = [place for place, part in enumerate(given) if part is not None]
    for part in step.tensors()[1:]:
        step.freeze(*part.axis_list)
    step.freeze(*(x.axis_list[place] for place in places))
    passing = [axis for place, axis in enumerate(x.axis_list) if place not in places]
    new: AxisList = [None] * (len(step.shape) - len(passing))
    adjacent = places == list(range(places[0], places[-1] + 1)) if places else True
    start = places[0] if places and adjacent else 0
    return [*passing[:start], *new, *passing[start:]]


def index_select(step: Step) -> Value:
    """Keep whole the axis whose rows are selected by index."""
    x = step.tensor("self")
    assert x is not None
    dim = int(step.arg("dim")) % len(x)
    step.freeze(x.axis_list[dim])
    return [None if place == dim else axis for place, axis in enumerate(x.axis_list)]


def prelu(step: Step) -> Value:
    """Follow one slope per channel, or one for all."""
    x, weight = step.tensor("self") or step.tensor("input"), step.tensor("weight")
    assert x is not None and weight is not None
    if weight.shape != (1,) and len(weight):
        step.join(x.axis_list[1 if len(x) > 1 else 0], weight.axis_list[0])
    return x.axis_list


def passing(step: Step) -> Value:
    """Return the input's axes: only values change."""
    return for_each(step, step.tensors()[0].axis_list)


def constant_axes(step: Step) -> Value:
    """Return free axes for a tensor that is constant along every axis."""
    return [step.variables.fresh(size) if size > 1 else None for size in step.shape]


def like(step: Step) -> Value:
    """Return the axes of a constant tensor with another's shape."""
    return step.tensors()[0].axis_list


def nothing(step: Step) -> Value:
    """Return no axes, for checks and scalars."""
    return None


def norm_rules(text: str) -> list[str]:
    return text.split()


NORMS = {
    **dict.fromkeys(norm_rules("batch_norm instance_norm _native_batch_norm_legit_no_training native_batch_norm"), batch_norm),
    **dict.fromkeys(norm_rules("layer_norm rms_norm _fused_rms_norm native_layer_norm"), layer_norm),
    **dict.fromkeys(norm_rules("group_norm native_group_norm"), group_norm),
    **dict.fromkeys(norm_rules(
        "mean sum var std var_mean std_mean max min amax amin norm linalg_vector_norm prod any all logsumexp argmax "
        "argmin median"
    ), reduction),
    **dict.fromkeys(norm_rules("softmax _softmax log_softmax _log_softmax cumsum cumprod sort topk"), along_one),
    **dict.fromkeys(norm_rules(
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d_with_indices "
        "max_pool2d_with_indices max_pool3d_with_indices upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
        "upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa grid_sampler grid_sampler_2d"
    ), space),
    "embedding": embedding, "index": index, "index_select": index_select, "prelu": prelu, "_prelu_kernel": prelu,
    **dict.fromkeys(norm_rules(
        "dropout feature_dropout alpha_dropout native_dropout contiguous clone to _to_copy alias detach lift_fresh_copy "
        "type_as pin_memory requires_grad nan_to_num"
    ), passing),
    **dict.fromkeys(norm_rules("zeros ones full empty new_zeros new_ones new_full new_empty scalar_tensor"), constant_axes),
    **dict.fromkeys(norm_rules("zeros_like ones_like full_like empty_like fill zero rand_like randn_like"), like),
    **dict.fromkeys(norm_rules("_assert_tensor_metadata _assert_async _assert_scalar sym_size item"), nothing),
}  # fmt: skip
