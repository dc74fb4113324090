"""Scaled dot product attention."""

from math import prod

import numpy as np

from cortado.network.graph.axes.step import Step, Value, broadcast
from cortado.network.graph.operators.facts import known
from cortado.network.graph.record import Operator


def attention(step: Step) -> Value:
    """Follow query (..., h, l, e), key (..., h, s, e), value (..., h, s, v): join e, inexact without an explicit
    scale.
    """
    q, k, v, mask = (step.tensor(name) for name in ("query", "key", "value", "attn_mask"))
    assert q is not None and k is not None and v is not None
    step.join(q.axis_list[-1], k.axis_list[-1])
    step.absorbs(q.axis_list[-1])
    if step.arg("scale") is None:
        step.inexact(q.axis_list[-1])
    step.freeze(q.axis_list[-2], k.axis_list[-2], v.axis_list[-2])
    heads, heads_read = q.axis_list[-3] if len(q) > 3 else None, k.axis_list[-3] if len(k) > 3 else None
    if heads is not None and q.shape[-3] != k.shape[-3]:
        repeat = q.shape[-3] // k.shape[-3]
        own = step.variables.fresh(k.shape[-3]) if k.shape[-3] > 1 else None
        again = np.tile(step.variables.fresh(repeat), (k.shape[-3], 1))
        if own is not None:
            step.join(own, heads_read)
            again = np.concatenate([np.repeat(own, repeat, 0), again], 1)
        step.join(heads, again)
        step.heads(own)
    alike = [q, k] if len(q) > 3 and q.shape[-3] == k.shape[-3] else [q]
    batches = broadcast(step, [(given.axis_list[:-2], given.shape[:-2]) for given in alike])
    if len(v) > 3 and k.shape[-3] == v.shape[-3]:
        step.join(heads_read, v.axis_list[-3])
    step.heads(heads)
    if mask is not None:
        broadcast(step, [(batches, q.shape[:-2]), (mask.axis_list[:-2], mask.shape[:-2])])
        step.freeze(*mask.axis_list[-2:])
    return [*batches, None, v.axis_list[-1]]


def attention_cost(operator: Operator) -> int:
    """Count fused attention (query (B, H, L, E), key (B, H, S, E), value (B, H, S, V), ...): both products."""
    query, key, value = operator.arguments[:3]
    return prod(query) * key[-2] + prod(query[:-1]) * value[-2] * value[-1]


VALUES = (2,)
"""Only the values pass factors on their channels: those of queries and keys are under the softmax."""
OPERATORS = known("scaled_dot_product_attention", axes=attention, cost=attention_cost, homogeneous=VALUES) | known(
    "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable",
    cost=attention_cost,
    homogeneous=VALUES,
)
