"""The networks of former files: the tiny ones, with the names of layers that they had then."""

from torch import Tensor, nn

from tests.laws.tiny_nets import BY_NAME, Attending


class FormerAttending(Attending):
    """A block whose last two layers are called inner and outer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.inner, self.outer = self.widen, self.narrow
        del self.widen, self.narrow

    def forward(self, activation: Tensor) -> Tensor:
        self.__dict__.update(widen=self.inner, narrow=self.outer)
        return super().forward(activation)


def former_net(name: str) -> nn.Module:
    """The network that a former file was made from."""
    network = BY_NAME[name].make()
    if name == "attention":
        network.blocks = nn.Sequential(FormerAttending(8, 2), FormerAttending(8, 2))
        # In their former place: modules count in order.
        head = network.head
        del network.head
        network.head = head
    return network.eval()
