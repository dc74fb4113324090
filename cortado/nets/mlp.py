"""A wide multilayer perceptron with batch norms, for low-bit networks."""

import torch
from torch import Tensor, nn


class Mlp1024(nn.Module):
    """Three hidden layers of 1,024 units, each with a batch norm, and a final norm.  Courbariaux et al., 2015.

    Input (N, 1, 28, 28), output (N, 10) logits, bounded by the final norm; 2.9 million weights. With `signed`,
    activations are clipped to -1..1 instead of at 0, so that their signs carry information (Courbariaux and Bengio,
    2016).
    """

    def __init__(self, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.fc1, self.norm1 = nn.Linear(784, 1024, bias=False), nn.BatchNorm1d(1024)
        self.fc2, self.norm2 = nn.Linear(1024, 1024, bias=False), nn.BatchNorm1d(1024)
        self.fc3, self.norm3 = nn.Linear(1024, 1024, bias=False), nn.BatchNorm1d(1024)
        self.fc4, self.norm4 = nn.Linear(1024, 10, bias=False), nn.BatchNorm1d(10)

    def forward(self, images: Tensor) -> Tensor:
        clip = nn.functional.hardtanh if self.signed else torch.relu
        activation = torch.flatten(images, 1)
        activation = clip(self.norm1(self.fc1(activation)))
        activation = clip(self.norm2(self.fc2(activation)))
        activation = clip(self.norm3(self.fc3(activation)))
        return self.norm4(self.fc4(activation))


def mlp_1024() -> Mlp1024:
    """Return the wide perceptron with fresh weights."""
    return Mlp1024()


def mlp_1024_signed() -> Mlp1024:
    """Return the same with signed activations, for binary networks."""
    return Mlp1024(signed=True)
