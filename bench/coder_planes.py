"""The planes the coder benches measure: codes of trained networks, quantized, clustered and pruned."""

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from bench.result import CACHE
from cortado.nets.weights import read_arrays, weights_path
from cortado.tasks.mnist import task as mnist

Planes = dict[str, list[np.ndarray]]
KEPT = {"LeNet-300-100": (0.08, 0.09, 0.26), "LeNet-5": (0.66, 0.12, 0.08, 0.19)}


def uniform(weight: np.ndarray, width: int) -> np.ndarray:
    """Codes of `width` bits, symmetric, one step a tensor."""
    return np.rint(weight / (np.abs(weight).max() / (2 ** (width - 1) - 1))).astype(np.int32)


def resnet56(width: int) -> list[np.ndarray]:
    """All weights of a trained CIFAR-10 ResNet-56."""
    arrays = read_arrays(weights_path(True, "cifar10_resnet56.npz"))
    return [uniform(array.numpy(), width) for array in arrays.values() if array.ndim > 1]


def squeezenet() -> list[np.ndarray]:
    """SqueezeNet pruned and clustered by the authors of Deep Compression: signed ranks of the shared values."""
    arrays = {name: array.numpy() for name, array in read_arrays(weights_path(True, "squeezenet_dc.npz")).items()}
    planes = []
    for name in arrays:
        if name.endswith(".code"):
            used = np.unique(arrays[name])
            values = arrays[name.removesuffix("code") + "codebook"][used]
            ranks = np.zeros(256, dtype=np.int32)
            ranks[used[np.argsort(values, kind="stable")]] = np.arange(len(used)) - np.count_nonzero(values < 0)
            planes.append(ranks[arrays[name]])
    return planes


def fit(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, masks: list[torch.Tensor]) -> None:
    """Two epochs of Adam; weights that masks prune stay zero."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    for _ in range(2):
        for index in torch.randperm(len(images)).split(128):
            loss = nn.functional.cross_entropy(network(images[index]), labels[index])
            loss = loss + 1e-5 * sum(weight.abs().sum() for weight in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for weight, mask in zip(weights, masks or [1.0] * len(weights), strict=True):
                    weight *= mask


def pruned(name: str) -> list[np.ndarray]:
    """A network trained on MNIST, pruned by magnitude to Han's shares, trained again; its codes of 4 bits."""
    path = CACHE / f"coder_{name}.npz"
    if not path.exists():
        data = mnist().train
        count = 50000 if name == "LeNet-300-100" else 10000
        images, labels = next(data.first(count).batches(count))
        torch.manual_seed(0)
        small = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )
        deep = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip
        network = small if name == "LeNet-300-100" else deep
        fit(network, images, labels, [])
        weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        masks = []
        for weight, keep in zip(weights, KEPT[name], strict=True):
            size = weight.detach().abs()
            masks.append((size > size.flatten().kthvalue(int(size.numel() * (1 - keep))).values).float())
        fit(network, images, labels, masks)
        CACHE.mkdir(exist_ok=True)
        np.savez(path, *[uniform(weight.detach().numpy(), 4) for weight in weights])
    with np.load(path) as stored:
        return [stored[key] for key in stored.files]


@lru_cache(maxsize=1)
def planes() -> Planes:
    """All planes by network."""
    nets: Planes = {"ResNet-56, 4 bits": resnet56(4), "ResNet-56, 8 bits": resnet56(8)}
    nets["SqueezeNet, clustered"] = squeezenet()
    for name in KEPT:
        nets[f"{name}, pruned"] = pruned(name)
    nets["LeNet-300-100, masks"] = [(plane != 0).astype(np.int32) for plane in pruned("LeNet-300-100")]
    nets["LeNet-5, masks"] = [(plane != 0).astype(np.int32) for plane in pruned("LeNet-5")]
    return nets
