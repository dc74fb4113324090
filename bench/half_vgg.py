"""VGG-16 at half width on CIFAR-10, trained here once and kept under bench/cache: 3.7 M parameters, 79 M multiply-adds.

It sees the 35,000 pictures of bench/held_out.py, so it can be scored on that file's 10,000 and on the test pictures.
"""

import torch
from safetensors.torch import save_file
from torch import nn

from bench.held_out import task
from bench.result import CACHE
from cortado.engine.job import own_tensors
from cortado.nets.checkpoint import load_weights
from cortado.nets.vgg import vgg_16_cifar
from cortado.training.loop import Training, train

PLAN = Training(epochs=12, lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, precision="bfloat16")


def half_vgg() -> nn.Module:
    """The trained network in eval mode, from the cache or trained now."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = vgg_16_cifar(width=0.5)
    path = CACHE / "original" / "vgg_16_half.safetensors"
    if path.exists():
        load_weights(network, path)
        return network.eval()
    train(network, task(), PLAN, label="train VGG-16, half width")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(own_tensors(network), path)
    return network.eval()


if __name__ == "__main__":
    from cortado.task.measure import mean_score

    torch.set_num_threads(1)
    given = task()
    print("validation accuracy", mean_score(half_vgg(), given.validation, given.metric))
