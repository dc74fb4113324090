"""New tensors: constants, counts and random numbers; and checks that return nothing."""

from cortado.network.graph.axes.constants import Constant, sizes
from cortado.network.graph.axes.step import Step, Value
from cortado.network.graph.operators.facts import free, known


def constant_axes(step: Step) -> Value:
    """Return free axes for a tensor that is constant along every axis."""
    return [step.variables.fresh(size) if size > 1 else None for size in step.shape]


def like(step: Step) -> Value:
    """Return the axes of a constant tensor with another's shape."""
    return step.tensors()[0].axis_list


def nothing(step: Step) -> Value:
    """Return no axes, for checks and scalars."""
    return None


def new_sizes(step: Step) -> list[Constant]:
    """Return the sizes of the new tensor."""
    return sizes(step, "size", step.outputs())


OPERATORS = (
    known(
        "zeros ones full empty new_zeros new_ones new_full new_empty",
        axes=constant_axes,
        constants=new_sizes,
        cost=free,
    )
    | known("scalar_tensor", axes=constant_axes, cost=free)
    | known("zeros_like ones_like full_like empty_like fill zero rand_like randn_like", axes=like, cost=free)
    | known("_assert_tensor_metadata _assert_async _assert_scalar item", axes=nothing, cost=free)
    | known("sym_size", axes=nothing)
    | known(
        "empty_permuted empty_strided new_empty_strided eye arange linspace logspace tril_indices triu_indices one_hot rand "
        "randn randint randint_like randperm uniform normal bernoulli multinomial _local_scalar_dense is_same_size",
        cost=free,
    )
)
