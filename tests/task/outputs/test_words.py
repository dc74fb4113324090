"""Words: classes as sentences, zero-shot answers among all and among some, classifiers made of sentences, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import cortado
from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.outputs.words import Words
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.objectives.captions import Captions
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training

NAMES = ("cat", "dog", "car", "ship")
PROMPTS = ("a {}", "the {} of a {}")
WIDTH = 6


def letters(texts):
    """Vectors of texts from the counts of their letters."""
    places = torch.randn(26, WIDTH, generator=torch.Generator().manual_seed(3))
    counts = torch.tensor([[text.count(chr(97 + number)) for number in range(26)] for text in texts])
    return counts.float() @ places


WORDS = Words.of(NAMES, letters, PROMPTS)


def encoder(width=WIDTH):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width))


MANY = Words.of((*NAMES, "bird", "frog", "horse", "deer", "truck", "plane", "apple", "house"), letters, PROMPTS)
UNSEEN = ("dog", "ship")


def samples(count=600, seed=0, words=WORDS):
    """Inputs that are a fixed map of their class's vector, with noise, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(words.names), (count,), generator=generator)
    mix = torch.randn(WIDTH, 8, generator=torch.Generator().manual_seed(9))
    return words.classes[labels] @ mix + 0.15 * torch.randn(count, 8, generator=generator), labels


def made_task():
    parts = [Data(*samples(count, seed)) for count, seed in ((600, 0), (300, 1), (300, 2))]
    return Task(*parts, loss=WORDS.loss, metric=WORDS.accuracy(), outputs=WORDS, batch=64)


def of(data, names, inside=True):
    """The samples of some classes, or of all others."""
    return data.pick((torch.isin(data.targets, MANY.numbers(names)) == inside).nonzero().flatten())


def test_a_class_is_the_mean_of_its_prompts():
    texts = [["a cat", "the cat of a cat"], ["a dog", "the dog of a dog"]]
    wanted = functional.normalize(
        torch.stack([functional.normalize(letters(pair), dim=1).mean(0) for pair in texts]), dim=1
    )
    torch.testing.assert_close(WORDS.classes[:2], wanted)
    outputs = torch.randn(5, WIDTH)
    cosines = functional.cosine_similarity(outputs[:, None], WORDS.classes[None], dim=2)
    torch.testing.assert_close(WORDS.rows(outputs)[:, 0], cosines / 0.07)
    maps = torch.randn(2, WIDTH, 3, 4)
    torch.testing.assert_close(WORDS.rows(maps)[1, 7], WORDS.rows(maps[1, :, 1, 3][None])[0, 0])


def test_the_nearest_sentence_answers_among_all_classes_and_among_some():
    outputs, labels = 3 * WORDS.classes[[0, 1, 2, 3]], torch.tensor([0, 1, 2, 3])
    assert WORDS.accuracy().rows(outputs, labels).tolist() == [1, 1, 1, 1]
    between = WORDS.classes[2] + 0.1 * WORDS.classes[0]
    some = WORDS.accuracy(("dog", "cat"))
    assert some.rows(between[None], torch.tensor([0])).tolist() == [
        float(WORDS.rows(between[None])[0, 0, :2].argmax() == 0)
    ]
    with pytest.raises(BadTask, match=r"must be those of dog, cat \(1, 0\), got 2"):
        some.rows(between[None], torch.tensor([2]))


def test_a_network_answers_classes_that_it_has_never_seen():
    parts = [Data(*samples(900, seed, MANY)) for seed in (0, 1, 2)]
    test = parts[2]
    task = Task(
        of(parts[0], UNSEEN, inside=False), *parts[1:], loss=MANY.loss, metric=MANY.accuracy(), outputs=MANY, batch=64
    )  # fmt: skip
    network = encoder()
    curves = train(network, task, Training(epochs=12, lr=5e-3), objectives=(Captions(),)).curves
    assert (
        curves["captions"][-1] < 0.5 * curves["captions"][0] and curves["temperature"][-1] != curves["temperature"][0]
    )
    assert mean_score(network, of(test, UNSEEN), MANY.accuracy(UNSEEN)) > 85
    seen = [name for name in MANY.names if name not in UNSEEN]
    assert mean_score(network, of(test, seen), MANY.accuracy(seen)) > 85


def test_a_contrastive_network_is_compressed_verified_and_exported_like_any_other(tmp_path):
    task, network = made_task(), encoder()
    train(network, task, Training(epochs=10, lr=1e-2), objectives=(Captions(),))
    recipe = [{"prune/weights": {"keep": 0.5}}, {"finetune": {"epochs": 3, "lr": 3e-3, "objectives": ["captions"]}},
              {"quantize/weights": {"bits": 6}}]  # fmt: skip
    small, report = cortado.compress(network, task, recipe)
    assert set(report.stages[1].curves) == {"captions", "temperature"}
    assert report.size_bytes < report.original_bytes and "zero-shot accuracy" in str(report)
    assert mean_score(small, task.test, task.metric) > mean_score(network, task.test, task.metric) - 5
    cortado.save(small, tmp_path / "small.cortado", original=encoder())
    torch.testing.assert_close(cortado.load(tmp_path / "small.cortado", encoder())(task.example), small(task.example))
    exported = cortado.export(small, task, "onnxruntime", tmp_path / "onnx")
    assert exported.score == pytest.approx(mean_score(small, task.validation, task.metric), abs=0.5)


def test_a_contrastive_teacher_teaches_embeddings_and_classes():
    task, teacher = made_task(), encoder()
    train(teacher, task, Training(epochs=10, lr=1e-2), objectives=(Captions(),))
    for objectives in ((Logits(),), (Features(at="2"),), (Logits(), Features(at="2"))):
        student = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, WIDTH))
        before = mean_score(student, task.test, task.metric)
        train(student, task, Training(epochs=20, lr=2e-2), objectives=objectives, teachers=(teacher,))
        assert mean_score(student, task.test, task.metric) > max(60, before + 10)
    classes = Task(task.train, task.validation, task.test, batch=64)
    small = nn.Linear(8, 4)
    train(
        small,
        classes,
        Training(epochs=20, lr=2e-2),
        objectives=(Logits(),),
        teachers=(WORDS.classifier(teacher).eval(),),
    )
    assert mean_score(small, classes.test, classes.metric) > 80


def test_a_classifier_of_sentences_gives_their_logits_and_is_a_network_of_its_own():
    network, inputs = encoder(), samples(5)[0]
    classifier = WORDS.only(("ship", "cat")).classifier(network)
    torch.testing.assert_close(classifier(inputs), WORDS.rows(network(inputs))[:, 0, [3, 0]])
    other = copy.deepcopy(classifier)
    other.load_state_dict(classifier.state_dict())
    assert "classes" in classifier.state_dict()


def test_the_loss_is_the_cross_entropy_of_the_sentences_and_teaches_without_contrast():
    outputs, labels = torch.randn(7, WIDTH), torch.arange(7) % 4
    torch.testing.assert_close(WORDS.loss(outputs, labels), functional.cross_entropy(WORDS.rows(outputs)[:, 0], labels))
    task, network = made_task(), encoder()
    train(network, task, Training(epochs=10, lr=1e-2), objectives=(TaskLoss(),))
    assert mean_score(network, task.test, task.metric) > 90


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prompts": ("a photo",)}, r"each prompt needs \{\} where the name of the class goes, got \['a photo'\]"),
        ({"prompts": "a {}"}, "each prompt needs"), ({"prompts": ()}, "each prompt needs"),
        ({"names": ("cat", "cat")}, "all different"), ({"names": "cat"}, "two names or more"),
        ({"names": ("cat", "")}, "two names or more"), ({"encoder": None}, "text encoder must be a function .* got None"),
        ({"encoder": "minilm"}, "text encoder must be a function"), ({"temperature": 0}, "temperature must be above 0"),
        ({"encoder": lambda texts: torch.zeros(3)}, r"vectors of shape \(8, width\), got \(3,\)"),
        ({"encoder": lambda texts: torch.full((len(texts), 2), torch.nan)}, "finite vectors"),
        ({"encoder": lambda texts: 1 / 0}, "text encoder raised ZeroDivisionError"),
    ],
)  # fmt: skip
def test_words_with_faults_are_refused(given, says):
    with pytest.raises(BadTask, match=says):
        Words.of(**({"names": NAMES, "encoder": letters, "prompts": PROMPTS} | given))


def test_networks_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(
        BadTask, match="gives 5 numbers for a sample, and a sentence is 6. Give the network's last layer 6"
    ):
        WORDS.rows(torch.randn(2, 5))
    with pytest.raises(BadTask, match="no class horse. There are: cat, dog, car, ship"):
        WORDS.only(("cat", "horse"))
    with pytest.raises(BadTask, match="no class in an empty list"):
        WORDS.only(())
