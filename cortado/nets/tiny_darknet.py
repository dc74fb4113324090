"""Tiny Darknet: alternating 1 x 1 and 3 x 3 convolutions with batch norms and leaky ReLUs."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.weights import load_arrays, read_arrays, weights_path

# output channels, kernel
LAYERS = (
    (16, 3), (32, 3), (16, 1), (128, 3), (16, 1), (128, 3), (32, 1), (256, 3), (32, 1), (256, 3),
    (64, 1), (512, 3), (64, 1), (512, 3), (128, 1),
)  # fmt: skip
POOLED_AFTER = (1, 2, 6, 10)


class TinyDarknet(nn.Module):
    """Fifteen convolutions with batch norms, a final one with a bias, global average pooling.  Redmon, 2016 (Darknet).

    Input (N, 3, 224, 224) in 0..1, output (N, `classes`) logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        into = 3
        for number, (out, kernel) in enumerate(LAYERS, 1):
            self.add_module(f"conv{number}", nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(out, eps=1e-3))
            into = out
        self.conv16 = nn.Conv2d(into, classes, 1)
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, images: Tensor) -> Tensor:
        activation = images
        for number in range(1, len(LAYERS) + 1):
            norm, convolution = self.get_submodule(f"bn{number}"), self.get_submodule(f"conv{number}")
            activation = self.activation(norm(convolution(activation)))
            if number in POOLED_AFTER:
                activation = functional.max_pool2d(activation, 2)
        return self.conv16(activation).mean((2, 3))


def tiny_darknet(classes: int = 1000, weights: str | Path | bool | None = None) -> TinyDarknet:
    """Return Tiny Darknet: 1.04 M parameters.

    `weights` is the path of an .npz, or True for $CORTADO_DATA/weights/tinydarknet.npz; None for fresh weights.
    Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    network = TinyDarknet(classes)
    if weights is not None and weights is not False:
        path = weights_path(weights, "tinydarknet.npz")
        load_arrays(network, read_arrays(path), str(path))
    return network
