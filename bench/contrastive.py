"""contrastive: pictures and words on CIFAR-10: two classes that no training has seen.

A ResNet-20 with 384 outputs learns which of eight classes' sentences belongs to each of 28,000 pictures (objective
`captions`; vectors of MiniLM), for five fixed pairs of classes left out, in the order of the labels: 300 steps of 128, one
seed, short. Zero-shot: the pictures of the pair, between its two sentences. The linear head is a logistic regression on
the 64 numbers before the embedding, from 5,000 pictures. A network that has learned from 35,000 pictures of all classes, as
long, then teaches a network of 0.08 M parameters that has a tenth of the labels, one seed; both students see as many
samples. Scored on 10,000 pictures that no training and no choice has seen. MiniLM wants its wheel (cortado/nets/minilm.py).
"""

import copy
import dataclasses
import math
from functools import cache
from statistics import mean, stdev
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from bench.held_out import NETS, TRAIN, fresh, task
from bench.kept import kept
from bench.result import CACHE, PIECES, row
from bench.self_training import LABELS, few
from bench.taught import Run, gain_row, run_of
from cortado.engine.compress import compress
from cortado.engine.job import own_tensors
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.minilm import WIDTH, sentence_vectors
from cortado.nets.resnet import cifar_resnet
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.outputs.words import Words
from cortado.task.task import Task
from cortado.tasks.cifar10 import NAMES
from cortado.training.loop import train
from cortado.training.objectives.captions import Captions
from cortado.training.precision import Precision
from cortado.training.training import Training

SEEDS = [0]
PAIRS = [NAMES[number : number + 2] for number in range(0, 10, 2)]
BATCH, STEPS, LONGER = 128, 300, 300
CHANCE, ERRORS, BEHIND = 50.0, 3.0, 2.0
PROBE = 5000
"""Pictures that the linear head learns from."""
KEEP, BITS, RECOVERY, CHOSEN_ON = 0.3, 6, 40, 1000
TAUGHT_STEPS, GAIN = 150, 1.0
STUDENT = "ResNet-8"
OBJECTIVES: list[Any] = ["task", {"logits": {"data": "unlabelled", "temperature": 4.0}}]


@cache
def words() -> Words:
    """Return the sentences of the ten classes."""
    return Words.of(NAMES, sentence_vectors)


def of_classes(data: Data, names: tuple[str, ...]) -> Data:
    """Return the samples of some classes."""
    return data.pick(torch.isin(torch.as_tensor(data.targets), words().numbers(names)).nonzero().flatten())


def seen_task(names: tuple[str, ...]) -> Task:
    """Return the task on the pictures of these classes alone."""
    whole = task()
    parts = {part: of_classes(getattr(whole, part), names) for part in ("train", "validation", "test")}
    return Task(**parts, loss=words().loss, metric=words().accuracy(names), outputs=words(), name="cifar10 in words")


def training(steps: int, data: Data, lr: float = 3e-3) -> Training:
    """Return how an encoder is trained."""
    return Training(
        epochs=steps * BATCH / len(data), lr=lr, optimizer="adamw", decay=1e-2, warmup=0.1, batch=BATCH, precision="bfloat16"
    )  # fmt: skip


def encoder(names: tuple[str, ...], steps: int) -> tuple[nn.Module, float]:
    """Return an encoder trained on the pictures of some classes, and the temperature that it has learned."""
    path = CACHE / "contrastive" / f"{'_'.join(names)}_{steps}.safetensors"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = cifar_resnet(classes=WIDTH)
    if not path.exists():
        data = seen_task(names)
        trained = train(network, data, training(steps, data.train), objectives=(Captions(),), label=f"without {names}")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({**own_tensors(network), "temperature": torch.tensor(trained.curves["temperature"][-1])}, path)
    values = load_file(path)
    temperature = float(values.pop("temperature"))
    network.load_state_dict(values)
    return network.eval(), temperature


def features(network: nn.Module, data: Data) -> Tensor:
    """Return the numbers before the embedding, (N, 64), in bfloat16 as the network was trained."""
    body, found = copy.deepcopy(network).eval(), []
    body.linear = nn.Identity()
    body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    how = Precision(torch.device("cpu"), half=True, channels_last=True)
    with torch.no_grad():
        for inputs, _ in data.batches(250):
            found.append(how.run(body, inputs))
    return torch.cat(found)


def linear_head(known: Tensor, labels: Tensor, asked: Tensor, wanted: Tensor) -> float:
    """Return the accuracy in % of a logistic regression on an encoder's features."""
    middle, spread = known.mean(0), known.std(0) + 1e-6
    head = nn.Linear(known.shape[1], len(NAMES))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head((known - middle) / spread), labels) + 1e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return 100 * float((head((asked - middle) / spread).argmax(1) == wanted).float().mean())


def scored(network: nn.Module, found: Tensor, pair: tuple[str, ...], seen: tuple[str, ...]) -> dict[str, float]:
    """Return zero-shot accuracies in %, from the features of the test pictures: unseen classes between two, among all, and
    seen among seen ones.
    """
    with torch.no_grad():
        data = Data(network.linear(found), task().test.targets)  # type: ignore[operator]
    unseen, same = of_classes(data, pair), nn.Identity()
    return {
        "unseen": mean_score(same, unseen, words().accuracy(pair)),
        "unseen among ten": mean_score(same, unseen, words().accuracy()),
        "seen": mean_score(same, of_classes(data, seen), words().accuracy(seen)),
    }


def measured(pair: tuple[str, ...]) -> dict[str, Any]:
    """Return the scores of the encoder that has not seen a pair, and of its linear head."""
    seen = tuple(name for name in NAMES if name not in pair)
    network, temperature = encoder(seen, STEPS)
    probe, asked = seen_task(seen).train.original().first(PROBE), task().test
    known, found = features(network, probe), features(network, asked)
    wanted = torch.as_tensor(asked.targets)
    kept_rows = torch.isin(wanted, words().numbers(seen))
    linear = linear_head(known, torch.as_tensor(probe.targets), found[kept_rows], wanted[kept_rows])
    made = {**scored(network, found, pair, seen), "linear": linear, "temperature": temperature}
    print(pair, made, flush=True)
    return made


def compressed(pair: tuple[str, ...]) -> dict[str, Any]:
    """Return the scores of an encoder pruned, trained again on its sentences, and rounded, and what its file takes."""
    seen = tuple(name for name in NAMES if name not in pair)
    data = seen_task(seen).for_trial()
    data = dataclasses.replace(data, validation=data.validation.first(CHOSEN_ON), test=data.validation.first(CHOSEN_ON))
    how = training(RECOVERY, data.train, lr=1e-3)
    recipe = [PruneWeights(keep=KEEP), Finetune(how, objectives=("captions",)), QuantizeWeights(bits=BITS)]
    network, report = compress(encoder(seen, STEPS)[0], data, recipe)
    return {
        **scored(network, features(network, task().test), pair, seen),
        "bytes": report.size_bytes,
        "before": report.original_bytes,
    }


def student(seed: int, taught: bool) -> Run:
    """Return the run of a small network with a tenth of the labels, with or without the contrastive teacher."""
    steps = TAUGHT_STEPS if taught else 2 * TAUGHT_STEPS
    objectives = OBJECTIVES if taught else ["task"]

    def make() -> nn.Module:
        teaching, temperature = encoder(NAMES, LONGER)
        teacher = dataclasses.replace(words(), temperature=temperature).classifier(teaching).eval()
        network, data = fresh(STUDENT, seed), few(seed)
        how = Training(
            epochs=steps * BATCH / LABELS, lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, precision="bfloat16",
            teacher_sees="original",
        )  # fmt: skip
        method = Finetune(how, objectives=objectives, teacher=teacher if taught else "original")
        method.apply(View(network, network, data.example), data)
        return network

    return run_of("contrastive", [STUDENT, seed, LABELS, steps, objectives, LONGER], few(seed), make)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return zero-shot accuracies, what compression leaves of them, and what the network teaches."""
    torch.set_num_threads(1)
    settings = [STEPS, BATCH, TRAIN, PROBE]
    found = {pair: kept("contrastive", [pair, *settings], lambda p=pair: measured(p), PIECES) for pair in PAIRS}
    unseen = [one["unseen"] for one in found.values()]
    error = stdev(unseen) / math.sqrt(len(unseen))
    behind = [one["linear"] - one["seen"] for one in found.values()]
    rows = [
        row(f"zero-shot, never seen: {' or '.join(pair)}", one["unseen"], "%", among_ten=one["unseen among ten"])
        for pair, one in found.items()
    ]
    rows += [
        row("zero-shot on the unseen pairs, mean", mean(unseen), "%", values=unseen, error=error),
        row("standard errors (over the pairs) above chance", (mean(unseen) - CHANCE) / error, "", ERRORS, "higher"),
        row("unseen classes among all ten, mean", mean(one["unseen among ten"] for one in found.values()), "%"),
        row("seen classes by their sentences, mean", mean(one["seen"] for one in found.values()), "%"),
        row("seen classes by a linear head, mean", mean(one["linear"] for one in found.values()), "%"),
        row("linear head over sentences", mean(behind), "points", BEHIND, "lower", values=behind),
    ]
    return [*rows, *compressed_rows(found), *student_rows(seeds)]


def compressed_rows(found: dict[tuple[str, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is left of the first pair's zero-shot accuracy in a file a fraction as large."""
    pair = PAIRS[0]
    small = kept("contrastive", [pair, STEPS, KEEP, BITS, RECOVERY], lambda: compressed(pair), PIECES)
    before = found[pair]
    return [
        row("compressed encoder: times smaller in its file", small["before"] / small["bytes"], "x", better="higher"),
        row(
            "compressed encoder: unseen pair lost", before["unseen"] - small["unseen"], "points", after=small["unseen"]
        ),
        row("compressed encoder: seen classes lost", before["seen"] - small["seen"], "points", after=small["seen"]),
    ]


def student_rows(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies of the small network from a tenth of the labels, alone and taught."""
    alone = [student(seed, taught=False) for seed in seeds]
    taught = [student(seed, taught=True) for seed in seeds]
    teacher, _ = encoder(NAMES, LONGER)
    whole = kept(
        "contrastive",
        ["teacher", LONGER],
        lambda: {"test": mean_score(teacher, task().test, words().accuracy())},
        PIECES,
    )
    size = sum(one.numel() for one in NETS[STUDENT]().parameters())
    return [
        row("teacher, all classes by their sentences", whole["test"], "%"),
        row(f"student of {size / 1e6:.2f} M, {LABELS:,} labels", mean(one["test"] for one in alone), "%"),
        row("student, the same labels and the teacher's words", mean(one["test"] for one in taught), "%"),
        gain_row("words over labels alone", taught, alone, len(task().test), GAIN),
    ]
