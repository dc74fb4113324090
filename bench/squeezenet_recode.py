"""SqueezeNet as Deep Compression published it, coded again: the authors' 660 KB against our file.

Nothing is trained or changed: each weight is form the authors' shared values and the places that are not zero, the
500 pictures are scored before and after the file, and every output must come back bit for bit. The authors' 660 KB
(Iandola et al., 2016, table 2: 0.66 MB, 363 times smaller than AlexNet's 240 MB) are the file they published: for each
layer the number of entries, 256 shared values and the biases as floats, and for each entry, filler zeros among them, a
code of 8 and a gap of 4 bits; no Huffman codes. Ours is the whole file with the same biases and all of its head; the
row of our own Deep Compression stream, with Huffman codes, tells how much of the saving those alone would bring.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.result import CACHE, row
from cortado.file.artifact import encode, load, save
from cortado.nets.squeezenet import Codes, squeezenet, squeezenet_deep_compression
from cortado.parts.forms.attach import attach
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.masked import Masked

AUTHORS_BYTES = 660_000
SAVED_BAR = 10.0
MEANS = (104.0, 117.0, 123.0)
SIDE, CROP = 256, 227
BATCH = 25


def pictures() -> tuple[Tensor, Tensor]:
    """The sample of ImageNet: (500, 3, 227, 227) blue, green, red less their means, and the classes (500,)."""
    with np.load(Path(os.environ["CORTADO_DATA"]) / "imagenet" / "imagenet_sample.npz") as stored:
        body, ends, classes = stored["body"].tobytes(), stored["ends"].tolist(), stored["y"]
    starts, edge = [0, *ends[:-1]], (SIDE - CROP) // 2
    whole = np.stack([np.asarray(Image.open(io.BytesIO(body[a:b]))) for a, b in zip(starts, ends, strict=True)])
    crops = torch.from_numpy(whole[:, edge : edge + CROP, edge : edge + CROP, ::-1].copy()).permute(0, 3, 1, 2).float()
    return crops - torch.tensor(MEANS).view(1, 3, 1, 1), torch.from_numpy(classes.astype(np.int64))


def attached(network: nn.Module, codes: Codes) -> nn.Module:
    """Hold every weight as published: its codes and shared values; in a mask where a shared value is zero."""
    layers = dict(network.named_modules())
    for path, (numbers, codebook) in codes.items():
        numbers = numbers.long()
        mask = codebook[numbers] != 0
        used, kept = torch.unique(numbers[mask], return_inverse=True)
        whole = bool(mask.all())
        shared = Codebook(codebook[used], kept.view(mask.shape) if whole else kept)
        attach(layers[path], "weight", shared if whole else Masked(mask, shared))
    return network.eval()


def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """Logits of all pictures."""
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(BATCH)])


def right(logits: Tensor, classes: Tensor, best: int) -> float:
    """Share of pictures whose class is among the `best` largest outputs, in %."""
    return 100 * float((logits.topk(best, 1).indices == classes[:, None]).any(1).float().mean())


def kernels(network: nn.Module) -> Iterator[Tensor]:
    """The weights of all convolutions."""
    for _, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            yield layer.weight.detach()


def run() -> list[dict]:
    """Bytes, share saved, agreement and accuracy."""
    published, codes = squeezenet_deep_compression()
    original = squeezenet()
    images, classes = pictures()
    before = outputs(published.eval(), images)
    network = attached(published, codes)
    CACHE.mkdir(exist_ok=True)
    size = save(network, CACHE / "squeezenet.cortado", original)
    again = load(CACHE / "squeezenet.cortado", original)
    after = outputs(again, images)
    weights = list(kernels(again))
    nonzero = 100 * sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
    theirs = len(encode(network, original, "deep_compression"))
    return [
        row("whole file", size, "B", (1 - SAVED_BAR / 100) * AUTHORS_BYTES, source_value=AUTHORS_BYTES),
        row("saved of the authors' 660 KB", 100 * (1 - size / AUTHORS_BYTES), "%", SAVED_BAR, "higher"),
        row("whole file, stream of Deep Compression written by us", theirs, "B", source_value=AUTHORS_BYTES),
        row("saved of that stream", 100 * (1 - size / theirs), "%"),
        row("weights that are not zero", nonzero, "%", source_value=33),
        row("outputs that differ in any bit after the file", int((before != after).sum()), "of 500,000", 0),
        row("same class before and after, 500 pictures", 100 * float((before.argmax(1) == after.argmax(1)).float().mean()),
            "%", 100, "higher"),
        row("top-1, 500 training pictures of ImageNet", right(after, classes, 1), "%", source_value="57.5, validation"),
        row("top-5, 500 training pictures of ImageNet", right(after, classes, 5), "%", source_value="80.3, validation"),
    ]  # fmt: skip
