"""Graph module: a network that is a graph of operators around parameters of its own."""

import copy
from typing import Any

from torch import fx, nn

from cortado.errors import BadNetwork
from cortado.parts.forms.attach import attached_class, attached_names, original_class
from cortado.parts.part import inside_parts


class GraphNet(fx.GraphModule):
    """The operators of a traced network around parameters and buffers of its own, under the names they had there.

    It takes what the network took, with any number of samples, and gives what the network gave. What were layers of
    torch are such layers again, so methods know them; other parameters stand in bare modules and can be held and
    trained all the same. In training mode batch norm and dropout layers train; what the network's code does otherwise
    when it trains is not in the graph: dropout inside attention, statistics of norms that are no layers of torch.
    `print(net.code)` shows the graph as code. The device is the one it was made on.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        """`root` has what `graph` calls and reads."""
        super().__init__(root, graph, class_name="GraphNet")

    def __reduce__(self) -> Any:
        """What pickle stores, with original weights; torch reads the code again, which would leave constants for forms."""
        if inside_parts(self):
            raise BadNetwork(
                "graph: a network that is a graph can be pickled with original weights only, and forms hold some of these. Pickle "
                "cortado.network.statistics.gradients.released(network)."
            )
        return super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphNet":
        """A copy in which forms still hold what they hold; torch's own would read the tensors out of them."""
        original = original_class(self)
        duplicate: Any = original.__new__(original)
        type(duplicate).__name__ = original.__name__
        memo[id(self)] = duplicate
        # What stands for nested inputs and outputs never changes.
        memo |= {id(spec): spec for spec in (self._in_spec, self._out_spec)}
        own = {name: value for name, value in self.__dict__.items() if name != "_graph"}
        duplicate.__dict__.update(copy.deepcopy(own, memo))
        duplicate.graph = graph_copy(self.graph)
        # The code of the graph belongs to the plain class, to which a released network returns.
        if attached_names(self):
            duplicate.__class__ = attached_class(type(duplicate), attached_names(self))  # type: ignore[arg-type]
        return duplicate


def graph_copy(graph: fx.Graph) -> fx.Graph:
    """A graph with the same operators that belongs to no module; what it says of nested inputs and outputs is shared."""
    fresh, duplicates = fx.Graph(), dict[fx.Node, fx.Node]()
    found, leaving = fresh.graph_copy(graph, duplicates, return_output_node=True)  # type: ignore[misc]
    fresh.output(found, leaving.type).meta = dict(leaving.meta)  # type: ignore[union-attr]
    fresh.set_codegen(graph._codegen)
    return fresh
