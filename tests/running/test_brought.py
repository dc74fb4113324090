"""Networks of every sort at every door: a sentence with the way out, or the same outputs as the original network's."""

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import cortado
from cortado.engine.job import Job
from cortado.errors import BadNetwork, Diverged
from cortado.lowering.graph import exported
from cortado.lowering.lower import lowered, outputs
from cortado.network.compare.explain import explain
from cortado.planner.allocate.size_accuracy_curve import size_accuracy_curve
from cortado.planner.search.goal import reach
from cortado.planner.search.trial_search import search
from cortado.running.brought import accept, blaming
from cortado.runtimes.by_layer import time_layers
from cortado.runtimes.export import export
from cortado.runtimes.split import find_cuts
from cortado.runtimes.torch_eager import TorchEager
from cortado.task.task import Task
from tests.laws.tiny_nets import BY_NAME

TASK = BY_NAME["mlp"].task()
EXAMPLE = TASK.example


def original() -> nn.Sequential:
    return BY_NAME["mlp"].make()


def traced() -> nn.Module:
    return torch.jit.trace(original(), EXAMPLE)


def partly_scripted() -> nn.Module:
    network = original()
    network[0] = torch.jit.script(network[0])
    return network


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(4))


def dynamic_integers() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(original(), {nn.Linear})


def quantized_tensor() -> nn.Module:
    network = original()
    network.register_buffer("codes", torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8))
    return network


REFUSED = {
    "scripted": (lambda: torch.jit.script(original()), "TorchScript.*Pass the nn.Module"),
    "traced": (traced, "TorchScript"),
    "scripted inside": (partly_scripted, r"0 \(.*TorchScript"),
    "lazy": (lazy, r"0 \(LazyLinear\) has no shapes yet. Run the network once"),
    "integers": (dynamic_integers, "is quantized already.*Pass the float network"),
    "a quantized tensor": (quantized_tensor, "is quantized already"),
    "a state dict": (lambda: original().state_dict(), "must be a torch.nn.Module, got OrderedDict"),
}
DOORS = {
    "compress": lambda network, folder: cortado.compress(network, TASK, "prune/weights keep=0.5"),
    "profile": lambda network, folder: cortado.profile(network, EXAMPLE),
    "profile --time": lambda network, folder: time_layers(network, EXAMPLE),
    "plan": lambda network, folder: size_accuracy_curve(network, network, TASK),
    "plan for limits": lambda network, folder: reach(network, TASK, ["size <= 1 KB"], folder=folder),
    "search": lambda network, folder: search(network, TASK, "prune/weights keep=0.2..0.8", trials=1, folder=folder),
    "export": lambda network, folder: export(network, TASK, TorchEager(), folder),
    "split": lambda network, folder: find_cuts(network, EXAMPLE),
    "explain": lambda network, folder: explain(network, network, TASK.calibration),
    "save": lambda network, folder: cortado.save(network, folder / "new.cortado", original=original()),
    "save from": lambda network, folder: cortado.save(original(), folder / "new.cortado", original=network),
    "load": lambda network, folder: cortado.load(folder / "net.cortado", original=network),
    "load by a maker": lambda network, folder: cortado.load(folder / "net.cortado", original=lambda: network),
    "inspect": lambda network, folder: cortado.inspect(folder / "net.cortado", original=network),
    "job": lambda network, folder: Job(make=lambda: network, make_task=lambda: TASK).original(TASK),
}


@pytest.mark.parametrize("sort", list(REFUSED))
@pytest.mark.parametrize("door", list(DOORS))
def test_network_that_cannot_be_worked_on_is_refused_at_every_door(door, sort, tmp_path):
    cortado.save(original(), tmp_path / "net.cortado", original=original())
    make, says = REFUSED[sort]
    with pytest.raises(BadNetwork, match=says):
        DOORS[door](make(), tmp_path)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one, as DistributedDataParallel needs it."""
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": lambda network: nn.parallel.DistributedDataParallel(network).eval(),
    "torch.compile": lambda network: torch.compile(network, backend="eager"),
}


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_wrapped_network_is_compressed_as_the_one_inside(name, one_process, tmp_path):
    wrapped = WRAPPERS[name](BY_NAME["residual"].make())
    task, recipe = BY_NAME["residual"].task(), "prune/channels keep=0.6 | quantize/weights bits=6"
    small, _ = cortado.compress(wrapped, task, recipe)
    wanted, _ = cortado.compress(BY_NAME["residual"].make(), task, recipe)
    torch.testing.assert_close(small(task.example), wanted(task.example))
    cortado.save(small, tmp_path / "net.cortado", original=wrapped)
    assert torch.equal(cortado.load(tmp_path / "net.cortado", original=wrapped)(task.example), small(task.example))
    program = exported(lowered(small, task.example), task.example).module()
    torch.testing.assert_close(program(task.example), wanted(task.example))


def test_wrapper_calls_itself_again_after_it_was_traced(one_process):
    wrapped = WRAPPERS["DistributedDataParallel"](original())
    exported(wrapped, EXAMPLE)
    assert "forward" not in wrapped.__dict__


def computed(how) -> nn.Module:
    """The first weight of a network is made of others, and was made last with a graph of gradients."""
    network = original().train()
    how(network[0])
    network(EXAMPLE)
    return network.eval()


COMPUTED = {
    "mask": (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "prune.remove"),
    "old weight_norm": (weight_norm, "remove_weight_norm"),
    "old spectral_norm": (spectral_norm, "remove_spectral_norm"),
    "weight_norm": (parametrizations.weight_norm, "remove_parametrizations"),
    "spectral_norm": (parametrizations.spectral_norm, "remove_parametrizations"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("name", list(COMPUTED))
def test_computed_weight_is_compressed_with_a_way_out_in_the_report(name):
    how, remover = COMPUTED[name]
    network = computed(how)
    before = network(EXAMPLE).detach()
    small, report = cortado.compress(network, TASK, "quantize/weights bits=8")
    assert any("0.weight" in one and remover in one for one in report.warnings)
    # Steps of 8 bits are 1 / 127 of the largest weight; what is computed from rounded parameters moves as little.
    with torch.no_grad():
        assert float((small(EXAMPLE) - before).abs().max()) < 0.03 * float(before.abs().max())
        assert torch.equal(network(EXAMPLE), before)
    torch.testing.assert_close(torch.cat(outputs(lowered(network, EXAMPLE), EXAMPLE)), before)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_computed_weight_still_trains_after_the_door():
    network = computed(weight_norm)
    accept(network, "test")
    network(EXAMPLE).sum().backward()
    assert network[0].weight_g.grad is not None and network[0].weight_v.grad is not None


class Complex(nn.Module):
    """A mixing of channels by complex numbers between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(12, 6), nn.Linear(6, 4)
        self.mix = nn.Parameter(torch.randn(6, 6, dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.leave((torch.relu(self.enter(inputs)).to(torch.complex64) @ self.mix).real)


@pytest.mark.parametrize(
    "recipe", ["prune/weights keep=0.5", "share/kmeans bits=2", "quantize/weights bits=4", "quantize/floats"]
)
def test_complex_parameter_is_left_as_it_is_and_noted(recipe, tmp_path):
    torch.manual_seed(0)
    network = Complex().eval()
    task = Task(TASK.train, TASK.validation, TASK.test, device="cpu")
    small, report = cortado.compress(network, task, recipe)
    changed = "bias" if recipe == "quantize/floats" else "weight"
    assert torch.equal(small.mix, network.mix)
    assert not torch.equal(getattr(small.enter, changed), getattr(network.enter, changed))
    assert recipe == "quantize/floats" or any("real floats: mix" in note for note in report.stages[0].notes)
    cortado.save(small, tmp_path / "net.cortado", original=network)
    assert torch.equal(cortado.load(tmp_path / "net.cortado", original=Complex)(task.example), small(task.example))
    with pytest.raises(cortado.CortadoError, match="'mix' selects no real floats"):
        cortado.compress(network, task, "quantize/weights bits=4 where=mix")


def test_float_layers_of_torchs_quantization_are_taken():
    network = original()
    network.add_module("sum", torch.ao.nn.quantized.FloatFunctional())
    assert accept(network, "test") == [] and accept(copy.deepcopy(network), "test") == []


def test_error_about_computed_weights_names_the_way_out():
    notes = accept(parametrizations.weight_norm(nn.Linear(3, 3)), "plan")
    with pytest.raises(Diverged, match=r"^lost\. weight \(1 in all\).*remove_parametrizations turns"), blaming(notes):
        raise Diverged("lost.")
    with pytest.raises(BadNetwork, match=r"^lost\.$"), blaming([]):
        raise BadNetwork("lost.")
