"""R-Net of MTCNN (Zhang et al., 2016), face or not, from the package facenet-pytorch; scikit-image's 100 faces and 100 others."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.strangers.package import file
from cortado import Data, Metric, Task

ENDS = [30, 60, 100, 130, 160, 200]
"""Of the faces: 30 to calibrate and learn from, 30 to choose on, 40 to test; the others alike."""


class RNet(nn.Module):
    """Pictures (N, 3, 24, 24) to logits of not a face and a face (N, 2), and four corners (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        activation = self.pool(self.prelu1(self.conv1(images)))
        activation = self.pool(self.prelu2(self.conv2(activation)))
        activation = self.prelu3(self.conv3(activation)).permute(0, 3, 2, 1).flatten(1)
        activation = self.prelu4(self.dense4(activation))
        return self.dense5_1(activation), self.dense5_2(activation)


def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Return the cross entropy of face or not."""
    return functional.cross_entropy(outputs[0], targets)


def job():
    """Return network and task."""
    network, grey = RNet(), torch.from_numpy(np.load(file("skimage", "data", "lfw_subset.npy"))).float()
    network.load_state_dict(torch.load(file("facenet_pytorch", "data", "rnet.pt"), weights_only=True))
    images = functional.interpolate(grey[:, None], 24).repeat(1, 3, 1, 1) * 2 - 1
    parts = [torch.arange(200)[low:high] for low, high in zip([0, *ENDS[:-1]], ENDS, strict=True)]
    numbers = [torch.cat(pair) for pair in zip(parts[:3], parts[3:], strict=True)]
    faces = (torch.arange(200) < 100).long()
    data = [Data(images[some], faces[some]) for some in numbers]
    return network.eval(), Task(*data, loss=loss, metric=Metric(), batch=20, name="faces")
