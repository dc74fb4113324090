"""Padding: zeros added before a convolution of an ONNX graph become its own padding, also between quantized values.

A runtime that runs in integers would otherwise leave integers for each pad: dequantize, pad, quantize.
"""

from typing import Any

from cortado.runtimes.kernels.packed import drop_unread_weights


def fold_pads(model: Any) -> None:
    """Give the convolutions of an ONNX model the zeros that a Pad before them adds to the last axes, in place."""
    folded = False
    for node in model.graph:
        found = padded_source(node) if node.op_type == "Conv" else None
        if found is not None:
            source, pads = found
            own = node.attributes.get_ints("pads", [0] * len(pads))
            node.attributes.add(ints("pads", [one + other for one, other in zip(own, pads, strict=True)]))
            node.replace_input_with(0, source)
            folded = True
    if folded:
        drop_unread_weights(model)


def padded_source(node: Any) -> tuple[Any, list[int]] | None:
    """Return what a Pad before a convolution reads and its pads of the last axes; None without such a Pad."""
    pad = node.inputs[0].producer()
    between = pad is not None and pad.op_type == "DequantizeLinear"
    if between:
        after, rounding = pad, pad.inputs[0].producer()
        pad = None if rounding is None or rounding.op_type != "QuantizeLinear" else rounding.inputs[0].producer()
    if pad is None or pad.op_type != "Pad" or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    source, pads = pad.inputs[0], zeros_added(pad)
    if pads is None or (between and not same_grid(source.producer(), after)):
        return None
    return source, pads


def zeros_added(pad: Any) -> list[int] | None:
    """Return the pads of a Pad's axes from the third on, starts first; None if it adds other values, elsewhere, or cuts."""
    sizes, value = numbers_of(pad.inputs[1]), pad.inputs[2] if len(pad.inputs) > 2 else None
    constant = pad.attributes.get_string("mode", "constant") == "constant"
    added = [0.0] if value is None else numbers_of(value)
    if not constant or len(pad.inputs) > 3 or sizes is None or added is None or any(added) or min(sizes) < 0:
        return None
    half = len(sizes) // 2
    return None if any(sizes[:2] + sizes[half : half + 2]) else [*sizes[2:half], *sizes[half + 2 :]]


def same_grid(one: Any, other: Any) -> bool:
    """Return whether two operators turn codes into values on one grid."""
    if one is None or one.op_type != "DequantizeLinear":
        return False
    pairs = zip(one.inputs[1:], other.inputs[1:], strict=True)
    return all(a is b or (numbers_of(a) is not None and numbers_of(a) == numbers_of(b)) for a, b in pairs)


def numbers_of(value: Any) -> list[Any] | None:
    """Return the numbers of a constant, flat; None for a computed value."""
    constant = None if value is None else value.const_value
    return None if constant is None else constant.numpy().reshape(-1).tolist()


def ints(name: str, values: list[int]) -> Any:
    """Return an attribute of whole numbers."""
    import onnx_ir

    return onnx_ir.AttrInt64s(name, values)
