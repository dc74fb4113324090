"""cifar_bytes: few bytes for ResNet-20 on CIFAR-10, every byte of the file counted, scored on the 1,000 test pictures.

Choices were made on 5,000 held-out training images. `python -m bench.cifar_bytes` runs it beforehand; results are kept.
"""

from typing import Any

import torch

from bench.cifar_dc import one
from bench.result import row

SEEDS = [0]
POINT, MOST, ERROR = "fewest_bytes_resnet_20_small", 30_000, 9.0


def run() -> list[dict[str, Any]]:
    """Return bytes and error of the point."""
    torch.set_num_threads(1)
    found = one(POINT)
    return [
        row("ResNet-20: file", found["size_bytes"], "B", MOST),
        row(f"ResNet-20: test error ({found['interval']} of the points lost)", 100 - found["accuracy"], "%", ERROR),
        row("ResNet-20: times smaller than fp32", found["times_smaller"], "x", better="higher"),
        row("ResNet-20: test error of the original", 100 - found["plain_accuracy"], "%"),
        row("ResNet-20: training", found["minutes"], "min"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(one(POINT))
