"""A small segmenter of CamVid: the student of several benches, its teacher, its task and how it trains.

The student sees a frame at half its size and has 80,000 parameters; the teacher is the published ESPNet. Both give logits
(N, 11, 90, 120), a quarter of the frame, where they learn; they are scored at the masks' size, 360 x 480.
"""

import dataclasses
import json
from collections.abc import Iterable
from functools import cache, partial
from hashlib import blake2b
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bench.result import CACHE
from cortado.engine.job import load_weights, own_tensors
from cortado.nets.espnet import espnet
from cortado.task.data import Data
from cortado.task.measure import scores
from cortado.task.metric import Metric
from cortado.task.overlap import mean_of_classes, overlaps
from cortado.task.task import Task
from cortado.tasks import camvid
from cortado.training.loop import train
from cortado.training.training import Training

WIDTH = 32
DILATIONS = (1, 2, 4, 8)
QUARTER = 4
WARMUP_STEPS = 40
TEST_STEP = 4


class Residual(nn.Module):
    """Two 3 x 3 convolutions, dilated, around which the activation passes."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first = activated(channels, channels, dilation=dilation)
        self.second = nn.Sequential(*normed(channels, channels, dilation=dilation))
        self.act = nn.PReLU(channels)

    def forward(self, activation: Tensor) -> Tensor:
        return self.act(activation + self.second(self.first(activation)))


class Segmenter(nn.Module):
    """Frames (N, 3, 360, 480) to logits (N, 11, 90, 120); `body` gives (N, 32, 45, 60)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = activated(3, 16, stride=2)
        self.down = activated(16, width, stride=2)
        self.body = nn.Sequential(*(Residual(width, dilation) for dilation in DILATIONS))
        self.head = nn.Conv2d(width, camvid.CLASSES, 1)
        self.skip = nn.Conv2d(16, camvid.CLASSES, 1)

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.stem(functional.avg_pool2d(frames, 2))
        coarse = self.head(self.body(self.down(fine)))
        return functional.interpolate(coarse, scale_factor=2.0, mode="bilinear") + self.skip(fine)


class QuarterSize(nn.Module):
    """A teacher's logits of the classes without void, averaged to a quarter of the frame's size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        return functional.avg_pool2d(self.network(frames)[:, : camvid.CLASSES], QUARTER)


def normed(channels_in: int, channels_out: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """Return a 3 x 3 convolution and its batch norm."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, dilation, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out)]


def activated(channels_in: int, channels_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return a convolution, its batch norm and a PReLU."""
    return nn.Sequential(*normed(channels_in, channels_out, stride, dilation), nn.PReLU(channels_out))


def student(seed: int, width: int = WIDTH) -> nn.Module:
    """Return the student with the fresh weights of a seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Segmenter(width)


def teacher() -> nn.Module:
    """Return the published ESPNet, with logits as the student's; its features are `network.encoder.b3`, (N, 256, 45, 60)."""
    return QuarterSize(espnet(weights=True)).eval()


@cache
def memory(part: str) -> tuple[Tensor, Tensor]:
    """Return all frames of a part, uint8 (N, 3, 360, 480), and their masks, uint8 (N, 360, 480)."""
    frames, masks = zip(*camvid.Frames(camvid.file_of(part)), strict=True)
    return torch.stack(frames), torch.stack([mask.byte() for mask in masks])


def stills(part: str, numbers: Iterable[int] | None = None) -> Data:
    """Return frames of a part with masks at their full size; all without numbers."""
    frames, masks = memory(part)
    chosen = slice(None) if numbers is None else list(numbers)
    return Data(frames[chosen], masks[chosen].long(), camvid.prepared)


def flipped(frames: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the frames, with their masks."""
    mirrored = torch.rand(len(frames), generator=generator) < 0.5
    return mirror(frames, mirrored), mirror(targets, mirrored)


def mirror(values: Tensor, mirrored: Tensor) -> Tensor:
    """Return pictures or maps (N, ..., W), mirrored where `mirrored` (N,) says so."""
    return torch.where(mirrored.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)


def quarter(masks: Tensor) -> Tensor:
    """Return the labels in the middle of each 4 x 4 pixels."""
    return masks[..., QUARTER // 2 :: QUARTER, QUARTER // 2 :: QUARTER]


def class_weights(masks: Tensor) -> Tensor:
    """Return 1 / ln(1.1 + share) of each class, divided by their mean.  Paszke et al., 2016 (ENet)."""
    counts = torch.bincount(masks.flatten(), minlength=camvid.CLASSES)[: camvid.CLASSES].float()
    weights = 1 / torch.log(1.1 + counts / counts.sum())
    return weights / weights.mean()


def full_size(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return logits at the masks' size."""
    return functional.interpolate(outputs, size=masks.shape[-2:], mode="bilinear")


def overlaps_at_full_size(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return each frame's rows of the mean IoU."""
    return overlaps(full_size(outputs, masks), masks, camvid.CLASSES)


SCORE = Metric("mean IoU", "%", overlaps_at_full_size, whole=mean_of_classes)


def task(seed: int = 0) -> Task:
    """Return the task: 367 frames with masks at quarter size, flipped at random; every 4th test frame is judged.

    The validation frames are those of the built-in task. The loss weighs classes.
    """
    frames, masks = memory("train")
    small = quarter(masks).long().contiguous()
    count = len(memory("val")[0])
    return Task(
        train=Data(frames, small, camvid.prepared, vary=flipped),
        validation=stills("val", range(0, count, camvid.VALIDATION_STEP)),
        test=stills("test", range(0, len(memory("test")[0]), TEST_STEP)),
        calibration=Data(frames[:: camvid.CALIBRATION_STEP], small[:: camvid.CALIBRATION_STEP], camvid.prepared),
        loss=partial(functional.cross_entropy, weight=class_weights(small), ignore_index=camvid.CLASSES),
        metric=SCORE, seed=seed, batch=8, name="small segmenter",
    )  # fmt: skip


def poly(progress: float) -> float:
    """Return the factor of the learning rate: (1 - progress)^0.9.  Chen et al., 2016 (DeepLab)."""
    return (1 - progress) ** 0.9


def training(epochs: float, lr: float = 3e-3, **knobs: Any) -> Training:
    """Return how the student trains: AdamW, warmed up over 40 steps."""
    steps = epochs * -(-len(memory("train")[0]) // 8)
    made = Training(epochs=epochs, lr=lr, optimizer="adamw", decay=1e-3, schedule=poly, precision="float32")
    return dataclasses.replace(made, **{"warmup": min(0.5, WARMUP_STEPS / steps), **knobs})


def trained(epochs: float, seed: int) -> nn.Module:
    """Return the student trained on labels alone; from bench/cache after the first call."""
    network, how = student(seed), training(epochs)
    count = sum(one.numel() for one in network.parameters())
    plan = json.dumps([epochs, how.lr, how.optimizer, how.decay, "poly", how.warmup, how.precision, count])
    mark = blake2b(plan.encode(), digest_size=4).hexdigest()
    path = CACHE / "original" / f"segmenter_{seed}_{mark}.safetensors"
    if path.exists():
        load_weights(network, path)
    else:
        train(network, task(seed), how, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(own_tensors(network), path)
    return network.eval()


def score(network: nn.Module, data: Data) -> float:
    """Return the mean IoU of a network on data with full-size masks, in %."""
    return float(scores(network, data, SCORE, batch=8).mean()) * SCORE.scale
