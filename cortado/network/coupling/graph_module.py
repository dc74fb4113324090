"""Graph module: a network as a graph of operators with its own parameters."""

import copy
from typing import Any

from torch import fx, nn

from cortado.errors import BadNetwork
from cortado.parts.forms.attach import attached_class, attached_names, original_class
from cortado.parts.part import inside_parts


class GraphNet(fx.GraphModule):
    """The operators of a traced network with its own parameters and buffers, under their original names.

    It has the network's inputs and outputs, for any batch size. Former torch layers are torch layers again, so
    methods recognize them; other parameters are stored in bare modules and can be trained and have forms. Batch norm
    and dropout layers follow the training mode. The graph omits other training-only code: dropout inside attention,
    statistics of norms that are not torch layers. `print(net.code)` shows the graph as code. It stays on the device
    it was made on.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        """`root` has the modules and tensors that `graph` uses."""
        super().__init__(root, graph, class_name="GraphNet")

    def __reduce__(self) -> Any:
        """Return the pickle state; it needs plain weights, since torch's re-execution would turn forms into
        constants.
        """
        if inside_parts(self):
            raise BadNetwork(
                "graph: a network that is a graph can be pickled with dense weights only, but some have forms. Pickle "
                "cortado.network.statistics.gradients.released(network)."
            )
        return super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphNet":
        """Return a copy that keeps its forms; torch's own copy would read the dense tensors."""
        original = original_class(self)
        duplicate: Any = original.__new__(original)
        type(duplicate).__name__ = original.__name__
        memo[id(self)] = duplicate
        # The specs of nested inputs and outputs never change.
        memo |= {id(spec): spec for spec in (self._in_spec, self._out_spec)}
        own = {name: value for name, value in self.__dict__.items() if name != "_graph"}
        duplicate.__dict__.update(copy.deepcopy(own, memo))
        duplicate.graph = graph_copy(self.graph)
        # The graph's code belongs to the plain class, to which a released network returns.
        if attached_names(self):
            duplicate.__class__ = attached_class(type(duplicate), attached_names(self))  # type: ignore[arg-type]
        return duplicate


def graph_copy(graph: fx.Graph) -> fx.Graph:
    """Return the same graph without an owning module; the specs of nested inputs and outputs are shared."""
    fresh, duplicates = fx.Graph(), dict[fx.Node, fx.Node]()
    found, leaving = fresh.graph_copy(graph, duplicates, return_output_node=True)  # type: ignore[misc]
    fresh.output(found, leaving.type).meta = dict(leaving.meta)  # type: ignore[union-attr]
    fresh.set_codegen(graph._codegen)
    return fresh
