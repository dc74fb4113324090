"""The CIFAR ResNets compute what the paper says, and take their weights strictly."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.nets.resnet import resnet_20, resnet_56


def layout(blocks):
    """Names and shapes of the arrays, written down independently of the network."""
    shapes = {"conv1.weight": (16, 3, 3, 3), "linear.weight": (10, 64), "linear.bias": (10,)}
    norms = {"bn1": 16}
    into = 16
    for level, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            path = f"layer{level}.{block}"
            shapes[f"{path}.conv1.weight"] = (width, into, 3, 3)
            shapes[f"{path}.conv2.weight"] = (width, width, 3, 3)
            norms |= {f"{path}.bn1": width, f"{path}.bn2": width}
            into = width
    for path, width in norms.items():
        shapes |= {f"{path}.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def random_arrays(blocks, seed=0):
    source = np.random.default_rng(seed)
    arrays = {name: source.normal(0, 0.2, shape).astype("float32") for name, shape in layout(blocks).items()}
    return {name: np.abs(array) + 0.5 if name.endswith("running_var") else array for name, array in arrays.items()}


def by_hand(arrays, images, blocks):
    """The network of He et al., section 4.2, straight from arrays."""
    value = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def normed(activation, path):
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(activation, *(value[f"{path}.{name}"] for name in names))

    activation = torch.relu(normed(functional.conv2d(images, value["conv1.weight"], padding=1), "bn1"))
    for level, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            path, stride = f"layer{level}.{block}", 2 if level > 1 and block == 0 else 1
            branch = functional.conv2d(activation, value[f"{path}.conv1.weight"], stride=stride, padding=1)
            branch = torch.relu(normed(branch, f"{path}.bn1"))
            branch = functional.conv2d(branch, value[f"{path}.conv2.weight"], padding=1)
            if stride == 2:
                activation = functional.pad(activation[:, :, ::2, ::2], (0, 0, 0, 0, width // 4, width // 4))
            activation = torch.relu(normed(branch, f"{path}.bn2") + activation)
    return functional.linear(activation.mean((2, 3)), value["linear.weight"], value["linear.bias"])


@pytest.mark.parametrize(("make", "blocks"), [(resnet_20, 3), (resnet_56, 9)])
def test_resnet_computes_the_paper_with_loaded_arrays(make, blocks, tmp_path):
    arrays = random_arrays(blocks)
    np.savez(tmp_path / "net.npz", **arrays)
    network = make(tmp_path / "net.npz").eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), by_hand(arrays, images, blocks), rtol=1e-4, atol=1e-4)
    counters = [value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")]
    assert len(counters) == 6 * blocks + 1 and not any(counters)


def test_resnet_looks_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    np.savez(tmp_path / "weights" / "cifar10_resnet20.npz", **random_arrays(3))
    monkeypatch.setenv("CORTADO_DATA", str(tmp_path))
    assert torch.equal(resnet_20(True).conv1.weight, torch.from_numpy(random_arrays(3)["conv1.weight"]))
    with pytest.raises(BadValue, match="cifar10_resnet56.npz"):
        resnet_56(weights=True)
    monkeypatch.delenv("CORTADO_DATA")
    with pytest.raises(BadValue, match="CORTADO_DATA"):
        resnet_20(weights=True)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "depth"])
def test_resnet_refuses_arrays_that_do_not_fit(change, tmp_path):
    arrays = random_arrays(3)
    if change == "missing":
        del arrays["layer2.1.bn2.bias"]
    if change == "extra":
        arrays["layer4.0.conv1.weight"] = np.zeros(3, "float32")
    if change == "shape":
        arrays["linear.weight"] = arrays["linear.weight"][:, :-1]
    if change == "depth":
        arrays = random_arrays(9)
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(BadNetwork, match="does not fit"):
        resnet_20(tmp_path / "net.npz")


def test_resnet_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "net.npz").write_bytes(b"not an archive")
    with pytest.raises(BadFile, match=r"net\.npz"):
        resnet_20(tmp_path / "net.npz")
    np.savez(tmp_path / "objects.npz", **{"conv1.weight": np.array([object()])})
    with pytest.raises(BadFile, match="plain arrays"):
        resnet_20(tmp_path / "objects.npz")


def test_resnet_does_not_load_on_the_meta_device(tmp_path):
    np.savez(tmp_path / "net.npz", **random_arrays(3))
    with torch.device("meta"), pytest.raises(BadNetwork, match="meta"):
        resnet_20(tmp_path / "net.npz")
