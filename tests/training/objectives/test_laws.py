"""Laws of every objective and of every training: what is zero, what stays, and what is taken off again."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadRecipe, BadValue, Diverged
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.running.trees import tensors_in
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.attention import Attention
from cortado.training.objectives.channelwise import Channelwise
from cortado.training.objectives.decoupled import Decoupled
from cortado.training.objectives.dist import Dist
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.matching import regressor
from cortado.training.objectives.nuclear_norm import NuclearNorm
from cortado.training.objectives.objective import Added, Observed, Player, Taps, TrainingStep, read_objectives
from cortado.training.objectives.pairwise import Pairwise
from cortado.training.objectives.relational import Relational
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
TAUGHT = (
    Logits(), Logits(temperature=1.0), Logits(direction="reverse"), Logits(direction="jensen"), Logits(standardised=True),
    Features(at="second_norm"), Features(at="norm, head", of="norm, head"), Decoupled(), Dist(), Attention(at="first, norm"),
    Relational(), Relational(at="second_norm"), Pairwise(at="second_norm", cells=4), Channelwise(at="second_norm"),
)  # fmt: skip
"""Of the others, the contrast of random embeddings is above 0, and the score of a critic is no distance."""
EVERYTHING = (TaskLoss(0.5), Logits(0.5), Features(0.1, at="first", of="second"))


def step_of(outputs, teachers, taps=None, modules=None):
    """A step as an objective sees it, of outputs and teachers' outputs."""
    loss = functional.cross_entropy
    return TrainingStep(None, None, outputs, taps or {}, teachers, 0.5, modules or {}, None, loss)


@pytest.mark.parametrize("objective", TAUGHT, ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_network_that_equals_its_teachers_has_nothing_to_learn(objective, count):
    found = {}
    for net, seed in (("same", 0), ("other", 1)):
        network, teacher = NET.make().double().eval(), NET.make().double().eval()
        if seed:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(1.5)
        data = Data(NET.task().train.inputs.double(), NET.task().train.targets)
        task = Task(data, data, data, batch=64, device="cpu", trial=True)
        before = copy.deepcopy(network)
        training = Training(epochs=1e-3, lr=1.0, optimizer="sgd", momentum=0.0, statistics="kept", precision="float32")
        trained = train(network, task, training, objectives=(objective,), teachers=(teacher,) * count)
        moved = sum(
            float((a - b).detach().norm()) for a, b in zip(network.parameters(), before.parameters(), strict=True)
        )
        found[net] = abs(trained.loss), moved
    assert found["same"] == (pytest.approx(0, abs=1e-8), pytest.approx(0, abs=1e-6))
    assert found["other"][0] > 1e-3 and found["other"][1] > 1e-4


def test_several_teachers_teach_the_mean_of_their_probabilities():
    outputs, (one, other) = torch.randn(5, 4), torch.randn(2, 5, 4)
    soft = (one.div(4).softmax(1) + other.div(4).softmax(1)) / 2
    wanted = 16 * (soft * (soft.log() - outputs.div(4).log_softmax(1))).sum(1).mean()
    terms = Logits(temperature=4.0).terms(step_of(outputs, (Observed(one), Observed(other))))
    torch.testing.assert_close(terms["logits"], wanted)


def test_features_are_the_squared_error_behind_a_regressor():
    mine, wanted = torch.randn(2, 3, 5, 5), torch.randn(2, 4, 5, 5)
    step = step_of(None, (Observed(None, {"b": wanted}),), {"a": mine})
    objective = Features(at="a", of="b")
    modules = objective.modules(step)
    assert [tuple(one.weight.shape) for one in modules.values()] == [(4, 3, 1, 1)]
    terms = objective.terms(step_of(None, step.teachers, {"a": mine}, modules))
    torch.testing.assert_close(terms["features"], functional.mse_loss(modules["regressor0"](mine), wanted))
    assert isinstance(regressor(torch.randn(2, 7, 3), torch.randn(2, 7, 5)), nn.Linear)


def test_training_takes_everything_off_again_and_leaves_teachers_as_they_are():
    network, teacher = NET.make(), NET.make().train()
    keys, before = list(network.state_dict()), copy.deepcopy(teacher.state_dict())
    random = torch.random.get_rng_state()
    train(network, NET.task(), Training(epochs=2, lr=0.05), objectives=EVERYTHING, teachers=(teacher,))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert list(network.state_dict()) == keys and teacher.training
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
    for one in (*network.modules(), *teacher.modules()):
        assert not one._forward_hooks and not one._forward_pre_hooks and not one._backward_hooks
    assert all(parameter.requires_grad for parameter in (*network.parameters(), *teacher.parameters()))


def test_hooks_are_off_after_a_training_that_failed():
    network, teacher = NET.make(), NET.make()

    def fail(network, step):
        raise KeyError("stop")

    with pytest.raises(KeyError):
        train(network, NET.task(), Training(), objectives=EVERYTHING, teachers=(teacher,), after_batch=fail)
    assert not any(one._forward_hooks for one in (*network.modules(), *teacher.modules()))


def test_regressors_move_in_a_group_of_their_own_and_are_thrown_away():
    groups = []

    def sgd(given):
        groups.extend(given)
        return torch.optim.SGD(given, 0.05)

    network = NET.make()
    train(network, NET.task(), Training(optimizer=sgd), objectives=EVERYTHING, teachers=(NET.make(),))
    assert len(groups) == 2 and [tuple(one.shape) for one in groups[1]["params"]] == [(6, 8, 1, 1), (6,)]


def test_factored_layers_are_tapped_where_they_run():
    tiny = BY_NAME["mlp"]
    network, original = tiny.make(), tiny.make()
    FactorizeSvd(keep=0.5).apply(View(network, original, tiny.example), tiny.task())
    seen = []

    def wanted(step):
        seen.append(step.taps["0"].shape)
        return step.taps["0"].square().mean()

    class Tapped(Added):
        def taps(self):
            return Taps(("0",))

    start = network(tiny.example)
    trained = train(network, tiny.task(), Training(lr=0.01), objectives=(Tapped(title="size", value=wanted),))
    assert (
        set(seen) == {torch.Size([16, 16])} and trained.curves["size"] and not torch.equal(network(tiny.example), start)
    )


@pytest.mark.parametrize(
    ("given", "wrong", "message"),
    [
        (["logit"], BadRecipe, "there is no objective 'logit'. Did you mean: logits"),
        ([{"logits": {"temprature": 4}}], BadRecipe, "no knob 'temprature'; did you mean 'temperature'"),
        ([{"logits": {"temperature": 0}}], BadValue, "temperature must lie in 0.05"),
        ([{"task": {"weight": -1}}], BadValue, "weight must lie in 0"),
        ([3], BadRecipe, "an objective is a name or one name with its knobs, got 3"),
        ([{"task": {}, "logits": {}}], BadRecipe, "an objective is a name or one name"),
        (["collections:OrderedDict"], BadRecipe, "is not a Objective"),
    ],
)
def test_wrong_objectives_are_refused_in_words(given, wrong, message):
    with pytest.raises(wrong, match=message):
        read_objectives(given, "here")


def failing(objectives, teachers=(), **changed):
    train(NET.make(), NET.task(), Training(epochs=1, **changed), objectives=objectives, teachers=teachers)


def test_nothing_to_learn_from_and_no_teacher_are_refused():
    with pytest.raises(BadValue, match="there is nothing to learn from"):
        failing((TaskLoss(0.0),))
    with pytest.raises(BadValue, match="objectives/logits: there is no teacher"):
        failing((Logits(),))
    with pytest.raises(BadValue, match="features: at names 2 layers and of 1"):
        failing((Features(at="stem, head", of="stem"),), (NET.make(),))


def test_teacher_of_another_shape_is_told_with_both_shapes():
    teacher = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))
    teacher(NET.example)
    with pytest.raises(BadNetwork, match=r"teacher's outputs have shape \(16, 7\), the network's \(16, 4\)"):
        failing((Logits(),), (teacher,))
    with pytest.raises(BadNetwork, match=r"stem gives shape \(2, 6, 8, 8\)|stem gives shape .*, the teacher's head"):
        failing((Features(at="stem", of="head"),), (NET.make(),))


def test_term_that_is_not_finite_is_named():
    nan = Added(title="mine", value=lambda step: step.outputs.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"the loss of epoch 1 is nan \(its terms mine\)"):
        failing((TaskLoss(), nan))


def test_short_form_of_a_teacher_is_written_out():
    assert Finetune(teacher=0.25, epochs=2) == Finetune(epochs=2, objectives=(TaskLoss(0.75), Logits(0.25, 4.0)))
    beside = Finetune(teacher=0.25, objectives=["task", "nuclear_norm"]).objectives
    assert beside == (TaskLoss(0.75), Logits(0.25, 4.0), NuclearNorm())
    assert Finetune(teacher=0.0) == Finetune()
    with pytest.raises(BadValue, match="teacher=0.5 and the objective logits are both given"):
        Finetune(teacher=0.5, objectives=["task", "logits"])


class Opposed(Added):
    """Learns against a critic that notes what moves when."""

    def modules(self, step):
        return {"critic": nn.Linear(4, 1), "own": nn.Linear(4, 1)}

    def opponents(self):
        return (Player(("critic",), self.against, every=2),)

    def against(self, step):
        assert not any(one.requires_grad for one in tensors_in(step.outputs))
        NOTED.append(("critic", step.modules["critic"].weight.detach().clone()))
        return {"critic": step.modules["critic"](step.outputs).square().mean()}

    def terms(self, step):
        critic, own = step.modules["critic"], step.modules["own"]
        NOTED.append(("network", critic.weight.detach().clone()))
        assert critic.weight.grad is None and not critic.weight.requires_grad and own.weight.requires_grad
        return {"fool": -critic(step.outputs).mean() + own(step.outputs).square().mean()}


NOTED: list[tuple[str, torch.Tensor]] = []


def test_players_step_before_the_network_every_second_time_and_keep_apart():
    NOTED.clear()
    seen = []

    def note(network, step):
        seen.append(all(parameter.grad is not None for parameter in network.parameters()))

    trained = train(NET.make(), NET.task(), Training(epochs=1), objectives=(Opposed(),), after_batch=note)
    assert [name for name, _ in NOTED] == ["critic", "network", "network"] * 2 and all(seen)
    assert not torch.equal(NOTED[0][1], NOTED[1][1]) and torch.equal(NOTED[1][1], NOTED[2][1])
    assert set(trained.curves) == {"critic", "fool"}


def test_critic_that_diverges_is_named():
    class Wild(Opposed):
        def against(self, step):
            return {"critic": step.modules["critic"](step.outputs).mean() / 0.0}

    with pytest.raises(Diverged, match="critic"):
        failing((Wild(),))
