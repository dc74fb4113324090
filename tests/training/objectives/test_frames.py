"""Objectives on consecutive frames: motion, frame pairs, frame sequences."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadTask
from cortado.task.data import Data
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.objectives.frame_pairs import FramePairs
from cortado.training.objectives.frame_sequence import FrameSequence, MapMemory
from cortado.training.objectives.motion import Motion
from cortado.training.objectives.objective import Observed, read_objectives
from cortado.training.objectives.pairwise import Pairwise
from cortado.training.training import Training
from cortado.video.clips import clips
from tests.training.objectives.given import given_step, random_numbers, total, with_modules
from tests.video.moving import Steady, smooth_pictures, video_of

OBJECTIVES = (Motion(), FramePairs(at="a"), FrameSequence(at="a"))
CLOSE = {"atol": 1e-12, "rtol": 1e-9}


def observed(layers, frames):
    """What a network that gives its input as output, and these layers of it, shows of frames."""
    return Observed(frames, {name: layer(frames) for name, layer in layers.items()})


def frames_step(mine, wanted, frames, earlier, before=None, flow=None, **more):
    """A step on frames after earlier ones, of a network and a teacher with a layer `a` each."""
    still = torch.zeros(len(frames), 2, *frames.shape[2:])
    targets = {"earlier": earlier, "flow": still if flow is None else flow, "visible": torch.ones_like(still[:, 0])}
    step = given_step(
        frames, frames, taps={"a": mine(frames)}, taught_taps={"a": wanted(frames)}, inputs=frames,
        targets=targets if before is None else targets | {"before": before},
        again=partial(observed, {"a": mine}), ask=lambda frames: (observed({"a": wanted}, frames),),
    )  # fmt: skip
    return replace(step, **more)


def layer(width, seed, kernel=1):
    torch.manual_seed(seed)
    return nn.Conv2d(3, width, kernel, padding=kernel // 2).double()


def video(*shape, seed=0):
    return random_numbers(*(shape or (2, 3, 8, 8)), seed=seed)


def value(term):
    return float(term.detach())


FRAMES, EARLIER, BEFORE = video(seed=0), video(seed=1), video(2, 2, 3, 8, 8, seed=2)
SEQUENCE = FrameSequence(at="a")


# Motion


def test_motion_is_the_weighted_mean_of_the_squared_distance():
    weights = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    step = frames_step(layer(4, 0), layer(4, 1), FRAMES, EARLIER)
    step.targets["visible"] = weights
    apart = (FRAMES.softmax(1) - EARLIER.softmax(1)).square().sum(1)
    wanted = sum(float(w) * float(a) for w, a in zip(weights.flatten(), apart.flatten(), strict=True)) / float(
        weights.sum()
    )
    assert value(Motion().terms(step)["motion"]) == pytest.approx(wanted)
    numbers = (FRAMES - EARLIER).square().sum(1)
    found = Motion().terms(replace(step, kind=Numbers()))["motion"]
    torch.testing.assert_close(found, (numbers * weights).sum() / weights.sum(), **CLOSE)


def test_network_that_moves_with_the_picture_has_no_motion_loss():
    picture = video(1, 3, 16, 16)
    for kernel, network in ((1, layer(5, 0)), (3, layer(5, 1, 3))):
        earlier, later = picture, picture.roll((-1, 2), (2, 3))
        flow = Steady(2, -1)(later, earlier)
        step = frames_step(network, network, later, earlier, flow=flow)
        step = replace(step, outputs=network(later), again=lambda frames, network=network: Observed(network(frames)))
        # Only what a convolution reaches within the picture moves along.
        step.targets["visible"] = torch.zeros(1, 16, 16)
        step.targets["visible"][:, kernel : -kernel - 1, 2 + kernel : -kernel] = 1
        with torch.no_grad():
            assert value(Motion().terms(step)["motion"]) == pytest.approx(0, abs=1e-20)
            step.targets["flow"] = flow + 1
            assert value(Motion().terms(step)["motion"]) > 1e-3


def test_motion_is_followed_at_the_size_of_the_outputs():
    """Frames of twice the size: two of their pixels are one of the outputs, and what cannot be followed is left out."""
    frames = video(1, 3, 16, 16)
    earlier, later = frames, frames.roll(4, 3)
    halve = nn.AvgPool2d(2)
    step = frames_step(halve, halve, later, earlier, flow=Steady(4, 0)(later, earlier))
    step = replace(step, outputs=halve(later), again=lambda frames: Observed(halve(frames)))
    assert value(Motion().terms(step)["motion"]) > 1e-3
    step.targets["visible"][..., :4] = 0
    assert value(Motion().terms(step)["motion"]) == pytest.approx(0, abs=1e-20)


def test_both_frames_learn_from_motion():
    network = layer(4, 0)
    step = frames_step(network, network, FRAMES, EARLIER)
    seen = []

    def again(frames):
        seen.append(network(frames))
        seen[0].retain_grad()
        return Observed(seen[0])

    outputs = network(FRAMES)
    outputs.retain_grad()
    Motion().terms(replace(step, outputs=outputs, again=again))["motion"].backward()
    assert float(outputs.grad.abs().max()) > 0 and float(seen[0].grad.abs().max()) > 0


# Frame pairs


def test_frame_pairs_are_cosines_across_frames():
    step = frames_step(layer(4, 0), layer(6, 1), FRAMES, EARLIER)

    def cosines(network):
        pictures = [nn.functional.adaptive_avg_pool2d(network(one), 2).flatten(2) for one in (FRAMES, EARLIER)]
        return torch.cosine_similarity(pictures[0][:, :, :, None], pictures[1][:, :, None], dim=1)

    wanted = (cosines(layer(4, 0)) - cosines(layer(6, 1))).square().mean()
    torch.testing.assert_close(FramePairs(at="a", cells=2).terms(step)["frame_pairs"], wanted, **CLOSE)


def test_frame_pairs_of_a_frame_with_itself_are_pairwise():
    step = frames_step(layer(4, 0), layer(6, 1), FRAMES, FRAMES)
    found = (FramePairs(at="a", cells=5), Pairwise(at="a", cells=5))
    torch.testing.assert_close(total(found[0], step), total(found[1], step), **CLOSE)


def test_frame_pairs_forget_a_rotation_that_both_frames_share():
    turned, turn = layer(4, 0), torch.linalg.qr(random_numbers(4, 4)).Q
    with torch.no_grad():
        turned.weight.copy_(torch.einsum("ij,jchw->ichw", turn, turned.weight))
        turned.bias.copy_(turn @ turned.bias)
    found = total(FramePairs(at="a"), frames_step(turned, layer(4, 0), FRAMES, EARLIER))
    assert value(found) == pytest.approx(0, abs=1e-20)
    step = frames_step(layer(4, 0), layer(4, 0), FRAMES, EARLIER, again=partial(observed, {"a": turned}))
    assert value(total(FramePairs(at="a"), step)) > 1e-3


# Frame sequences


def test_memory_of_pictures_of_one_pixel_is_an_lstm():
    """In a padded 3 x 3 kernel, a single pixel meets the middle alone; torch's cell has its gates in another order."""
    torch.manual_seed(0)
    memory, cell = MapMemory(4, bound=1e6).double(), nn.LSTMCell(1, 4).double()
    write, keep, show, news = memory.gates.weight[:, :, 1, 1].chunk(4)
    biases = memory.gates.bias.chunk(4)
    with torch.no_grad():
        whole = torch.cat([write, keep, news, show])
        cell.weight_ih.copy_(whole[:, :1])
        cell.weight_hh.copy_(whole[:, 1:])
        cell.bias_ih.copy_(torch.cat([biases[0], biases[1], biases[3], biases[2]]))
        cell.bias_hh.zero_()
    pictures, state = random_numbers(3, 5, 1), None
    for picture in pictures:
        state = cell(picture, state)
    torch.testing.assert_close(memory([one[:, :, None, None] for one in pictures]), state[0])


def test_sequences_of_a_network_that_equals_its_teacher_have_nothing_to_learn():
    same = with_modules(SEQUENCE, frames_step(layer(4, 0), layer(4, 0), FRAMES, EARLIER, BEFORE))
    other = with_modules(SEQUENCE, frames_step(layer(4, 1), layer(4, 0), FRAMES, EARLIER, BEFORE))
    assert value(SEQUENCE.terms(same)["frame_sequence"]) == 0 < value(SEQUENCE.terms(other)["frame_sequence"])


def test_sequences_read_all_frames_in_order():
    """The network differs from its teacher in what it makes of one frame alone."""
    frames = [*BEFORE.unbind(1), EARLIER, FRAMES]
    network, found = layer(4, 0), []
    for number in range(4):
        step = with_modules(SEQUENCE, frames_step(network, network, FRAMES, EARLIER, BEFORE))
        changed = partial(changed_on, frames[number], network)
        found.append(
            SEQUENCE.terms(replace(step, taps={"a": changed(FRAMES)}, again=partial(observed, {"a": changed})))
        )
    values = [value(one["frame_sequence"]) for one in found]
    assert min(values) > 0 and len(set(values)) == 4


def changed_on(frame, network, frames):
    """What a network makes of frames, upside down for one of them."""
    made = network(frames)
    return made.flip(2) * torch.arange(1, 9) if torch.equal(frame, frames) else made


def test_memory_is_paid_for_large_embeddings_which_the_network_does_not_feel():
    network = layer(4, 1)
    step = with_modules(SEQUENCE, frames_step(network, layer(4, 0), FRAMES, EARLIER, BEFORE))
    network.zero_grad()
    SEQUENCE.terms(step)["embeddings"].backward()
    memory = step.modules["memory0"]
    assert network.weight.grad is None and float(memory.gates.weight.grad.abs().max()) > 0
    before = value(SEQUENCE.terms(step)["embeddings"])
    with torch.no_grad():
        memory.gates.weight.sub_(memory.gates.weight.grad)
    assert -1 * SEQUENCE.enlarge < value(SEQUENCE.terms(step)["embeddings"]) < before < 0


def test_weights_of_the_memory_count_up_to_the_bound():
    torch.manual_seed(0)
    memory, pictures = MapMemory(4, bound=0.5), torch.randn(3, 2, 1, 6, 6)
    with torch.no_grad():
        memory.gates.weight.fill_(1e4)
        memory.gates.bias.fill_(-1e4)
    bounded = MapMemory(4, bound=1e6)
    with torch.no_grad():
        bounded.gates.weight.fill_(0.5)
        bounded.gates.bias.fill_(-0.5)
    torch.testing.assert_close(memory(list(pictures)), bounded(list(pictures)))


# In a training


class Segmenter(nn.Module):
    """Classes by pixel, with a batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)

    def forward(self, frames):
        return self.head(self.norm(self.a(frames)).relu())


def clip_task(length=3):
    """Stills with labels, and a video without."""
    video = video_of(smooth_pictures(1, 32)[0], 12, 2, -1)
    unlabelled = clips(Data(video, prepare=lambda frames: frames.float() / 255), Steady(2, -1), length=length)
    stills = smooth_pictures(12, 32, seed=1).float() / 255
    data = Data(stills, stills.argmax(1))
    return Task(data, data, data, unlabelled=unlabelled, batch=5, device="cpu", trial=True)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.name())
def test_objectives_on_frames_train_a_network(objective):
    network, teacher = Segmenter(), Segmenter()
    with torch.no_grad():
        teacher.a.weight.mul_(torch.linspace(-2, 2, 6).view(6, 1, 1, 1))
    training, learned = Training(epochs=12, lr=0.02, precision="float32"), replace(objective, data="unlabelled")
    trained = train(network, clip_task(), training, objectives=(learned,), teachers=(teacher,))
    curve = trained.curves[f"{objective.name()}, unlabelled"]
    assert len(curve) == 12 and curve[-1] < 0.7 * curve[0]


def test_earlier_frames_leave_running_statistics_alone():
    task, training = clip_task(2), Training(epochs=0.1, lr=0.0, optimizer="sgd", precision="float32")
    network, wanted = Segmenter(), Segmenter().train()
    train(network, replace(task, batch=64), training, objectives=(Motion(data="unlabelled"),))
    for frames, _ in task.unlabelled.batches(64):
        wanted(frames)
    torch.testing.assert_close(network.norm.running_mean, wanted.norm.running_mean)
    assert int(network.norm.num_batches_tracked) == int(wanted.norm.num_batches_tracked) == 1


def test_labels_and_motion_are_learned_side_by_side():
    objectives = read_objectives(["task", {"motion": {"weight": 2.0, "data": "unlabelled"}}], "here")
    trained = train(Segmenter(), clip_task(2), Training(epochs=8, lr=0.02, precision="float32"), objectives=objectives)
    labels, motion = trained.curves["task"], trained.curves["motion, unlabelled"]
    assert len(labels) == len(motion) == 8 and labels[-1] < 0.8 * labels[0] and max(motion) > 0
    with pytest.raises(BadTask, match="the task has no unlabelled data, which motion learns from"):
        train(Segmenter(), replace(clip_task(2), unlabelled=None), Training(), objectives=objectives)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.name())
def test_targets_without_earlier_frames_are_refused_in_words(objective):
    for targets in (torch.zeros(2), {"earlier": EARLIER}):
        step = replace(frames_step(layer(4, 0), layer(4, 0), FRAMES, EARLIER), targets=targets)
        with pytest.raises(BadTask, match=r"targets must have earlier, flow, visible, got .*unlabelled=clips"):
            objective.terms(step)


def test_outputs_and_layers_that_are_no_maps_are_refused_in_words():
    step = frames_step(layer(4, 0), layer(4, 0), FRAMES, EARLIER)
    with pytest.raises(BadNetwork, match=r"motion compares maps \(N, C, H, W\), and the network gives shape \(2, 3\)"):
        Motion().terms(replace(step, outputs=FRAMES.mean((2, 3))))
    flat = partial(observed, {"a": lambda frames: frames.mean((2, 3))})
    for objective in (FramePairs(at="a"), SEQUENCE):
        with pytest.raises(BadNetwork, match=f"{objective.name()} compares maps"):
            objective.terms(with_modules(objective, replace(step, taps=flat(FRAMES).taps, again=flat)))


def test_objectives_are_found_by_the_names_of_their_files():
    assert (
        read_objectives(["motion", {"frame_pairs": {"at": "a"}}, {"frame_sequence": {"at": "a"}}], "here") == OBJECTIVES
    )
