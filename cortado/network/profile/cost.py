"""Cost: the multiply-adds of one operator, from the shapes it ran on.

By convention elementwise operators, norms, pooling, sums, look-ups and data movement cost 0; zero padding of a
convolution counts like any other input. The cost of an operator that is neither known to multiply nor known to be
free is unknown.
"""

from collections.abc import Callable
from math import prod

from cortado.network.graph.trace import Operator, Shape

# Names without "aten." and without the trailing "_" of in-place operators.
PICTURES = """
    adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d_with_indices max_pool3d_with_indices
    fractional_max_pool2d max_unpool2d max_unpool3d grid_sampler_2d im2col col2im
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle
    native_channel_shuffle constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
"""
NORMS_AND_NONLINEARITIES = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update
    cudnn_batch_norm miopen_batch_norm native_layer_norm native_group_norm _fused_rms_norm native_dropout
    _softmax _log_softmax _safe_softmax glu hardswish hardtanh leaky_relu log_sigmoid_forward softplus _prelu_kernel
    rrelu_with_noise _thnn_fused_lstm_cell _thnn_fused_gru_cell
"""
SUMS_AND_ORDER = """
    sum mean var std var_mean std_mean max min argmax argmin median nanmedian mode kthvalue topk sort argsort all any
    cumsum cummax cummin bincount histc unique_dim _unique2 searchsorted bucketize isin equal nonzero
"""
MOVES = """
    alias cat stack clone copy _to_copy view_copy _unsafe_view _reshape_copy unsafe_split unsafe_split_with_sizes
    split_with_sizes_copy unfold_copy repeat repeat_interleave flip roll tril triu resize set lift_fresh
    lift_fresh_copy gather index index_select index_add index_copy index_fill index_put _unsafe_index
    _unsafe_index_put masked_fill masked_scatter masked_select scatter scatter_add scatter_reduce select_scatter
    slice_scatter embedding _embedding_bag _embedding_bag_forward_only _pack_padded_sequence _pad_packed_sequence
    _local_scalar_dense item is_same_size _assert_async _assert_scalar _assert_tensor_metadata
"""
NEW_TENSORS = """
    empty empty_like empty_permuted empty_strided zeros zeros_like ones ones_like full full_like fill zero
    new_empty new_empty_strided new_zeros new_ones new_full scalar_tensor eye arange linspace logspace tril_indices
    triu_indices one_hot rand rand_like randn randn_like randint randint_like randperm uniform normal bernoulli
    multinomial
"""
FREE = frozenset(" ".join((PICTURES, NORMS_AND_NONLINEARITIES, SUMS_AND_ORDER, MOVES, NEW_TENSORS)).split())


def convolution(operator: Operator) -> int:
    """Count aten.convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    activation, weight, transposed = operator.arguments[0], operator.arguments[1], bool(operator.arguments[6])
    # Each output of a convolution, or each input of a transposed one, is multiplied with weight[0] once.
    positions = activation if transposed else operator.outputs[0]
    return prod(positions) * prod(weight[1:])


def mkldnn_convolution(operator: Operator) -> int:
    """Count kernels for plain convolution only: (input, weight, ...)."""
    return prod(operator.outputs[0]) * prod(operator.arguments[1][1:])


def matmul(first: int, second: int) -> Callable[[Operator], int]:
    """Return a counter for (..., n, k) times (..., k, m), the arguments at `first` and `second`."""

    def count(operator: Operator) -> int:
        left, right = operator.arguments[first], operator.arguments[second]
        return prod(left) * (right[-1] if len(right) > 1 else 1)

    return count


def linear(operator: Operator) -> int:
    """Count (input (..., k), weight (m, k), ...)."""
    return prod(operator.arguments[0]) * operator.arguments[1][0]


def attention(operator: Operator) -> int:
    """Count fused attention (query (B, H, L, E), key (B, H, S, E), value (B, H, S, V), ...): both products."""
    query, key, value = operator.arguments[:3]
    return prod(query) * key[-2] + prod(query[:-1]) * value[-2] * value[-1]


def recurrent_layer(operator: Operator) -> int:
    """Count one layer in one direction: (input (T, B, I), weight_ih, weight_hh, ...)."""
    activation, inner, outer = operator.arguments[:3]
    return prod(activation[:-1]) * (prod(inner) + prod(outer))


def recurrent(at: int) -> Callable[[Operator], int]:
    """Return a counter for all layers together, with the list of weights as argument `at`: each matrix once per step."""

    def count(operator: Operator) -> int:
        weights: tuple[Shape, ...] = operator.arguments[at]
        return prod(operator.arguments[0][:-1]) * sum(prod(weight) for weight in weights if len(weight) > 1)

    return count


def bilinear(operator: Operator) -> int:
    """Count aten._trilinear as nn.Bilinear calls it: (left (N, I), weight (O, I, J), right (N, J), ...)."""
    samples, (outputs, left, right) = operator.arguments[0][0], operator.arguments[1]
    # The weight is multiplied with the left input, and the result with the right input.
    return samples * outputs * right * (left + 1)


MULTIPLY: dict[str, Callable[[Operator], int]] = {
    "convolution": convolution,
    "_convolution": convolution,
    "convolution_overrideable": convolution,
    "mkldnn_convolution": mkldnn_convolution,
    "_conv_depthwise2d": mkldnn_convolution,
    "mm": matmul(0, 1),
    "mv": matmul(0, 1),
    "bmm": matmul(0, 1),
    "dot": matmul(0, 1),
    "vdot": matmul(0, 1),
    "matmul": matmul(0, 1),
    "_int_mm": matmul(0, 1),
    "addmm": matmul(1, 2),
    "addmv": matmul(1, 2),
    "addbmm": matmul(1, 2),
    "baddbmm": matmul(1, 2),
    "_addmm_activation": matmul(1, 2),
    "linear": linear,
    "mkldnn_linear": linear,
    "_trilinear": bilinear,
    "_scaled_dot_product_flash_attention": attention,
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "_scaled_dot_product_efficient_attention": attention,
    "_scaled_dot_product_cudnn_attention": attention,
    "_scaled_dot_product_fused_attention_overrideable": attention,
    "scaled_dot_product_attention": attention,
    "mkldnn_rnn_layer": recurrent_layer,
    "lstm": recurrent(2),
    "gru": recurrent(2),
    "_cudnn_rnn": recurrent(1),
    "miopen_rnn": recurrent(1),
}


def base_name(operator: Operator) -> str:
    """Return the short name: "aten.relu_.default" -> "relu"; operators of other libraries keep their full name."""
    library, _, rest = operator.name.partition(".")
    return rest.partition(".")[0].removesuffix("_") if library == "aten" else operator.name


def multiply_adds(operator: Operator) -> int | None:
    """Return an operator's multiply-adds: 0 when it is free by convention, None when unknown."""
    name = base_name(operator)
    if name in MULTIPLY:
        return MULTIPLY[name](operator)
    return 0 if operator.pointwise or operator.view or operator.reduction or name in FREE else None
