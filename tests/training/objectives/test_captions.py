"""captions: CLIP's loss, samples that share a sentence, a temperature that is learned, several processes, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.task.data import Data
from cortado.task.outputs.words import Words
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.objectives.captions import TEMPERATURE, Captions, Temperature, both_ways
from cortado.training.training import Training
from tests.fresh import forked
from tests.training.objectives.given import given_step, random_numbers, total, with_modules

VECTORS = functional.normalize(random_numbers(3, 2, 5, seed=4).float(), dim=2)
WORDS = Words(("cat", "dog", "car"), VECTORS)
TRAINING = Training(epochs=2, lr=0.1, optimizer="sgd", precision="float32")


def test_with_sentences_of_their_own_it_is_clips_loss():
    mine, sentences = random_numbers(6, 4), random_numbers(6, 4, seed=1)
    found = total(
        Captions(temperature=0.1), with_modules(Captions(temperature=0.1), given_step(mine, targets=sentences))
    )
    logits = functional.normalize(mine, dim=1) @ functional.normalize(sentences, dim=1).T / 0.1
    own = torch.arange(6)
    wanted = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(found, wanted)


def test_samples_of_one_class_are_no_negatives_of_each_other():
    logits, same = random_numbers(4, 4), torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    shared = torch.tensor([2.0, 1, 2, 1]).double().log().mean()
    wanted = (
        -shared
        + sum(
            -(each[0, 0] + each[0, 2] + each[2, 0] + each[2, 2]) / 2 - each[1, 1] - each[3, 3]
            for each in (logits.log_softmax(1), logits.T.log_softmax(1))
        )
        / 8
    )
    torch.testing.assert_close(both_ways(logits, same), wanted)
    # Embeddings that equal their sentences, which are at right angles, reach the least that is possible.
    eye = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 2]]
    assert float(both_ways(eye @ eye.T / 0.01, same)) == pytest.approx(0, abs=1e-9)


def test_equal_vectors_count_as_one_sentence():
    mine = random_numbers(4, 5).float()
    labelled = given_step(mine, targets=torch.tensor([0, 1, 0, 2]), kind=Words(WORDS.names, VECTORS[:, :1]))
    own = given_step(mine, targets=VECTORS[[0, 1, 0, 2], 0])
    made = {TEMPERATURE: Temperature(0.07)}
    values = [Captions().terms(dataclasses.replace(step, modules=made))["captions"] for step in (labelled, own)]
    torch.testing.assert_close(*values)


def test_a_prompt_of_each_class_is_drawn_at_each_step():
    mine, targets = random_numbers(6, 5).float(), torch.arange(6) % 3
    step = with_modules(Captions(), given_step(mine, targets=targets, kind=WORDS))
    torch.manual_seed(0)
    found = {round(float(total(Captions(), step).detach()), 5) for _ in range(60)}
    assert len(found) == 2**3


def test_the_temperature_is_learned_and_stays_above_its_least():
    made = Temperature(0.07)
    with torch.no_grad():
        assert float(made()) == pytest.approx(0.07)
        made.sharpness.fill_(20.0)
        assert float(made()) == pytest.approx(0.01)
    mine = random_numbers(8, 5).float()
    step = with_modules(Captions(), given_step(mine, targets=torch.arange(8) % 3, kind=WORDS))
    total(Captions(), step).backward()
    assert float(step.modules[TEMPERATURE].sharpness.grad) != 0
    assert float(step.figures[TEMPERATURE]) == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("outputs", "given", "says"),
    [
        (random_numbers(3, 5), {"targets": torch.tensor([0, 1, 2])}, "the targets are labels, and the task has no sentences"),
        (random_numbers(3, 4), {"targets": torch.tensor([0, 1, 2]), "kind": WORDS}, r"gives shape \(3, 4\).* layer 5 outputs"),
        (random_numbers(3, 5), {"targets": torch.tensor([0, 1, 3]), "kind": WORDS}, "labels must lie in 0..2"),
        (random_numbers(3, 5), {"targets": torch.zeros(3)}, "targets must be vectors of sentences"),
        (random_numbers(3, 5), {"targets": None, "kind": WORDS}, "got NoneType"),
    ],
)  # fmt: skip
def test_what_has_no_sentences_is_refused(outputs, given, says):
    step = given_step(outputs.float(), modules={TEMPERATURE: Temperature(0.07)}, **given)
    with pytest.raises(BadValue, match=says):
        Captions().terms(step)


def test_it_needs_labels():
    with pytest.raises(BadValue, match="learns from labels"):
        Captions(data="unlabelled")


def made(case: str) -> tuple[nn.Module, Task]:
    """A network and a task; with one prompt a class and equal shares, or own sentences and shares that differ."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5))
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(29, 7, generator=generator)
    # With batches of 8 the last one has 5: three for the first process, two for the second.
    own = torch.randn(29, 5, generator=generator)
    own[3] = own[11]
    data = Data(inputs, torch.arange(29) % 3 if case == "labels" else own)
    labelled = Data(inputs, torch.arange(29) % 3)
    return network, Task(data, labelled, labelled, outputs=WORDS, loss=WORDS.loss, metric=WORDS.accuracy(), batch=8,
                         device="cpu", trial=True)  # fmt: skip


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    both = forked(f"{__name__}:child", 2, folder, group="environment")
    assert both.returncode == 0, both.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["labels", "sentences"])
def test_two_processes_compare_the_samples_of_both(case, in_two):
    """Equal to one process with the whole batches: weights, loss and temperature."""
    network, task = made(case)
    trained = train(network, task, TRAINING, objectives=(Captions(),))
    for one in in_two:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(one[case]["values"][name], value, rtol=0, atol=1e-5)
        for term, curve in trained.curves.items():
            assert one[case]["curves"][term] == pytest.approx(curve, rel=1e-4), term


def child(rank: int, folder: str) -> None:
    """Train as one of two processes, and keep what it has afterwards."""
    found = {}
    for case in ("labels", "sentences"):
        network, task = made(case)
        trained = train(network, task, TRAINING, objectives=(Captions(),))
        found[case] = {"values": network.state_dict(), "curves": trained.curves}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
