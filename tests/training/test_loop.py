"""The training loop against torch's own steps."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadValue, Diverged, NothingChanged
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.logits import Logits, distillation
from cortado.training.objectives.objective import Added
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import SLICE, Teachers
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]


class SeenTeacher(nn.Module):
    """A teacher that notes how many samples it is given; its copies note in the same list."""

    def __init__(self, seen):
        super().__init__()
        self.network, self.note = NET.make(), seen.append

    def forward(self, inputs):
        self.note(len(inputs))
        return self.network(inputs)


def after(plan, task=None, network=None, **given):
    network = network or NET.make()
    trained = train(network, task or NET.task(), plan, **given)
    return network, trained.loss


def test_training_is_a_plain_loop_of_torch():
    task, network = NET.task(), NET.make()
    got, _ = after(Training(epochs=2, lr=0.1, optimizer="sgd", momentum=0.5, schedule="constant", precision="float32"))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.5, nesterov=True)
    for epoch in range(2):
        for inputs, targets in task.train.batches(16, task.generator(epoch + 1)):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (1e-3, 1), (1, 4), (0.25, 1), (0.5, 2), (2, 8), (1.5, 6)])
def test_epochs_may_be_parts(epochs, steps):
    counted = []
    after(Training(epochs=epochs), after_batch=lambda network, step: counted.append(step))
    assert counted == list(range(1, steps + 1))


def test_no_epochs_leave_everything_as_it_was():
    tiny, original = BY_NAME["residual"], BY_NAME["residual"].make()
    network = tiny.make()
    loss = train(network, tiny.task(), Training(epochs=0, lr=1.0, average=0.5, warmup=0.5))
    assert math.isnan(loss) and not network.training
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in network.state_dict().items())
    with pytest.raises(
        NothingChanged, match=r"stage 1 \(finetune\): it needs a parameter or a statistic that its training moves"
    ):
        compress(original, tiny.task(), "finetune epochs=0")


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]),
        ("step", [1, 1, 0.1, 0.01]),
        (lambda done: 1 - done, [1, 0.75, 0.5, 0.25]),
    ],
)
def test_rate_follows_the_schedule(schedule, rates):
    seen = []

    class Seen(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    after(Training(epochs=1, optimizer=lambda groups: Seen(groups, 0.2), schedule=schedule))
    assert seen == pytest.approx([0.2 * rate for rate in rates])


def test_average_is_the_mean_of_the_last_steps():
    kept = []

    def note(network, step):
        kept.append(copy.deepcopy(network.state_dict()))

    network, _ = after(Training(epochs=1, lr=0.05, average=0.5), after_batch=note)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, (kept[2][key] + kept[3][key]) / 2)


def test_penalty_is_added_to_the_loss():
    heavy, _ = after(
        Training(epochs=2, lr=0.05),
        network=(network := NET.make()),
        objectives=(TaskLoss(), Added(10.0, "size", lambda step: sum(p.square().sum() for p in network.parameters()))),
    )
    light, _ = after(Training(epochs=2, lr=0.05))
    assert sum(float(p.detach().square().sum()) for p in heavy.parameters()) < 0.7 * sum(
        float(p.detach().square().sum()) for p in light.parameters()
    )


def test_teacher_alone_pulls_the_network_to_its_outputs():
    teacher = NET.make()
    with torch.no_grad():
        teacher[2].weight.mul_(-2)
    network, _ = after(Training(epochs=40, lr=0.02), teachers=(teacher,), objectives=(Logits(temperature=2.0),))
    inputs = NET.task().train.inputs
    before = (NET.make()(inputs).softmax(1) - teacher(inputs).softmax(1)).abs().mean()
    assert float(((network(inputs).softmax(1) - teacher(inputs).softmax(1)).abs().mean() / before).detach()) < 0.25


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_divergence_times_the_squared_temperature(temperature):
    outputs, soft = torch.randn(6, 3), torch.randn(6, 3).softmax(1)
    wanted = (soft * (soft.log() - (outputs / temperature).log_softmax(1))).sum(1).mean() * temperature**2
    torch.testing.assert_close(distillation(outputs, soft, temperature), wanted)


def test_teachers_answer_a_batch_of_images_as_if_it_came_whole():
    teachers = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)) for _ in range(2)]
    images = torch.randn(2 * SLICE + 3, 3, 8, 8)
    with torch.no_grad():
        whole = sum((teacher(images) / 3.0).softmax(1) for teacher in teachers) / 2
    given = Teachers(teachers, (), "float32", torch.device("cpu")).observe(images)
    torch.testing.assert_close(sum((one.outputs / 3.0).softmax(1) for one in given) / 2, whole)


def test_parameters_of_a_teacher_are_shared_and_those_of_the_learner_are_copied():
    """A large teacher is in memory once; one that learns itself stays as it was."""
    learner, other = nn.Linear(3, 2), nn.Linear(3, 2)
    inputs = torch.randn(4, 3)
    teachers = Teachers((other, learner), (), "float32", torch.device("cpu"), learner)
    before = teachers.observe(inputs)
    pointers = [one.weight.data_ptr() for one in teachers.networks]
    assert pointers[0] == other.weight.data_ptr() and pointers[1] != learner.weight.data_ptr()
    assert other.weight.requires_grad and not any(one.weight.requires_grad for one in teachers.networks)
    with torch.no_grad():
        learner.weight.add_(1.0)
    assert torch.equal(teachers.observe(inputs)[1].outputs, before[1].outputs)


def test_teacher_runs_at_every_step_on_varied_data_and_once_a_sample_else():
    base = NET.task()
    counted = {}
    for name, augment in (("varied", lambda x, generator: x + 0.1), ("as they are", None)):
        seen = []
        task = Task(Data(base.train.inputs, base.train.targets, augment=augment), base.validation, base.test, batch=16)
        objectives = (TaskLoss(0.5), Logits(0.5))
        after(Training(epochs=2), task, teachers=(SeenTeacher(seen),), objectives=objectives)
        counted[name] = seen
    assert counted == {"varied": [16] * 8, "as they are": [64]}


def test_network_ends_in_eval_mode_and_the_callers_random_state_is_kept():
    before = torch.random.get_rng_state()
    network, loss = after(Training(epochs=0.5))
    assert not network.training and math.isfinite(loss)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("clip", [1e-3, 0.1])
def test_clip_bounds_the_step(clip):
    network, _ = after(Training(epochs=0.25, lr=1.0, optimizer="sgd", momentum=0.0, clip=clip, schedule="constant"))
    moved = torch.cat(
        [(a - b).detach().flatten() for a, b in zip(network.parameters(), NET.make().parameters(), strict=True)]
    )
    assert float(moved.norm()) == pytest.approx(clip, rel=1e-3)


def test_wrong_plans_are_refused_in_words():
    with pytest.raises(BadValue, match="optimizer must be one of adam, adamw, sgd, got 'lion'"):
        Training(optimizer="lion")
    with pytest.raises(BadValue, match="precision must be one of auto, float32, bfloat16, got 'int8'"):
        Training(precision="int8")
    with pytest.raises(BadNetwork, match="the network has no trainable parameter"):
        after(Training(), network=NET.make().requires_grad_(False))


def test_optimizer_starts_again_when_the_structure_changed():
    def change(network, epoch):
        if epoch == 1:
            network[0] = nn.Linear(12, 16)
            return True
        return False

    network, _ = after(Training(epochs=2, lr=0.05), after_epoch=change)
    fresh = network[0].weight.detach().clone()
    again, _ = after(Training(epochs=0.25), network=copy.deepcopy(network))
    assert not torch.equal(again[0].weight, fresh)


def test_statistics_of_norms_are_kept_when_asked_for():
    torch.manual_seed(0)
    data = Data(torch.randn(32, 3, 8, 8) + 2, torch.arange(32) % 2)
    task = Task(data, data, data, trial=True)
    moved = {}
    for statistics in ("moving", "kept"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
        before = network[1].running_mean.clone(), network[1].weight.detach().clone()
        train(network, task, Training(epochs=1, lr=1e-2, statistics=statistics))
        moved[statistics] = not torch.equal(network[1].running_mean, before[0])
        assert not torch.equal(network[1].weight.detach(), before[1]) and not network[1].training
    assert moved == {"moving": True, "kept": False}


def one_step(network, scale, **how):
    """How far one step of SGD at rate 1 moves the parameters: the norm of the gradient, as it was clipped."""
    made = copy.deepcopy(network)
    task = dataclasses.replace(BY_NAME["residual"].task(), loss=lambda *pair: scale * functional.cross_entropy(*pair))
    train(made, task, Training(epochs=1e-3, lr=1.0, schedule="constant", precision="float32", **how))
    pairs = zip(made.parameters(), network.parameters(), strict=True)
    return float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm())


def test_plain_gradients_are_clipped_where_statistics_are_kept():
    network = BY_NAME["residual"].make()
    sgd = {"optimizer": "sgd", "momentum": 0.0}
    whole = one_step(network, 1.0, statistics="kept", clip=math.inf, **sgd)
    assert one_step(network, 1.0, statistics="kept", **sgd) == pytest.approx(min(whole, 5.0), rel=1e-3)
    factor = 20.0 / whole
    assert one_step(network, factor, statistics="kept", **sgd) == pytest.approx(5.0, rel=1e-3)
    assert one_step(network, factor, statistics="kept", clip=2.0, **sgd) == pytest.approx(2.0, rel=1e-3)
    assert one_step(network, factor, statistics="kept", clip=math.inf, **sgd) == pytest.approx(20.0, rel=1e-3)
    assert one_step(network, 1e3, statistics="moving", **sgd) > 5.0


def steep(blocks):
    """Residual blocks of a linear layer and a norm whose kept variance is a 400th of what the layer gives: a steep network."""
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(blocks)]
    for part in parts:
        part[1].running_var.fill_(1 / 400)
    return nn.Sequential(*parts, nn.Linear(8, 4)).eval()


def test_recovery_with_kept_statistics_does_not_diverge():
    data = torch.randn(512, 8, generator=torch.Generator().manual_seed(1)), torch.arange(512) % 4
    task = Task(data, data, data, batch=32, device="cpu", trial=True)
    how = {"epochs": 2, "lr": 5e-3, "optimizer": "sgd", "statistics": "kept"}
    with pytest.raises(
        Diverged, match=r"in float32 with kept batch norm statistics.*clip gradients, set statistics: moving"
    ):
        train(steep(4), task, Training(**how, clip=math.inf))
    assert math.isfinite(train(steep(4), task, Training(**how)))


def test_a_network_in_float16_that_diverges_is_told_so():
    data = torch.randn(64, 8).half(), torch.arange(64) % 4
    task = Task(data, data, data, loss=lambda outputs, _: outputs.float().mean() * math.nan, device="cpu", trial=True)
    with pytest.raises(Diverged, match=r"in float16 with .*Call network.float\(\) first, lower lr"):
        train(nn.Linear(8, 4).half(), task, Training())


def test_average_leaves_out_state_that_is_no_tensor():
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            assert state == {"calls": 3}

    torch.manual_seed(0)
    network = nn.Sequential(Counting(12, 4))
    train(network, NET.task(), Training(epochs=1, average=0.5))
    assert bool(torch.isfinite(network[0].weight).all())
