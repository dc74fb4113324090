"""Laws of every method, on networks of six sorts."""

import contextlib
import copy
import re
import subprocess
import sys

import pytest
import torch

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadValue, NothingChanged
from cortado.file.artifact import decode, encode, load, save
from cortado.knobs.nested import knobs_of
from cortado.layers.norm import is_batch_norm
from cortado.methods.needs import Leaves
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import original_class
from tests.fresh import ROOT
from tests.laws.asked import (
    FINDS_WORK,
    after_first,
    asked,
    asked_of,
    leaves,
    stages,
    stages_on,
    view_after,
    would_change,
)
from tests.laws.compressed import IDLE_PAIRS, PAIRS, compressed
from tests.laws.left import left_in, lost_forms
from tests.laws.small_methods import ALL_METHODS, small
from tests.laws.tiny_nets import BY_NAME
from tests.laws.two_stages import after_both, asked_between, view_between

every_method_on_every_net = pytest.mark.parametrize(("name", "net"), PAIRS, scope="module")
"""By pairs: all laws of one stand side by side, for the worker that has made its result."""


def states_equal(one, other) -> bool:
    """Whether two state dicts are equal bit by bit, names included."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@every_method_on_every_net
def test_method_gives_finite_outputs_of_the_same_shape(name, net):
    result, example = compressed(name, net), BY_NAME[net].example
    outputs = result.small(example)
    assert outputs.shape == result.original(example).shape
    assert bool(torch.isfinite(outputs).all())


@every_method_on_every_net
def test_method_leaves_the_users_network_untouched(name, net):
    result = compressed(name, net)
    assert states_equal(result.original.state_dict(), result.before)
    assert all(type(layer) is original_class(layer) for layer in result.original.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in result.original.parameters())


@pytest.mark.parametrize("name", ALL_METHODS)
def test_method_gives_the_same_with_the_same_seed(name):
    net = next(net for one, net in PAIRS if one == name)
    torch.manual_seed(12345)
    again, _ = compress(BY_NAME[net].make(), BY_NAME[net].task(), stages(name))
    assert states_equal(again.state_dict(), compressed(name, net).small.state_dict())


@every_method_on_every_net
def test_method_leaves_the_random_state_of_the_caller(name, net):
    assert torch.equal(*compressed(name, net).random)


@every_method_on_every_net
def test_method_leaves_parameters_outside_where_bit_equal(name, net):
    """A batch norm belongs to the layer before it: `match_moments` moves its statistics, training its running means."""
    tiny = BY_NAME[net]
    network = tiny.make()
    for stage in stages(name)[:-1]:
        stage.apply(View(network, tiny.make(), tiny.example), tiny.task())
    start = copy.deepcopy(network)
    method = small(name, where=tiny.some)
    view = View(network, tiny.make(), tiny.example)
    chosen = {weight.path.rpartition(".")[0] for weight in view.weights(tiny.some)}
    with contextlib.suppress(NothingChanged):
        method.apply(view, tiny.task())
    before = {weight.path: weight.dense() for weight in parameter_places(start)}
    after = {weight.path: weight.dense() for weight in parameter_places(network)}
    outside = [path for path in before if path.rpartition(".")[0] not in chosen]
    assert outside
    for path in outside:
        if name == "prune/blocks" and path not in after:
            # A block goes whole, its norms too.
            assert path.rsplit(".", 2)[0] in {layer.rpartition(".")[0] for layer in chosen}, path
        elif leaves(name, Leaves.NARROWER) and after[path].shape != before[path].shape:
            # What reads the cut channels lost its entries for them and kept the others.
            assert set(after[path].flatten().tolist()) < set(before[path].flatten().tolist()), path
        elif leaves(name, Leaves.COPIES):
            # Norms take the size of filters, and channels may change places.
            norm = is_batch_norm(start.get_submodule(path.rpartition(".")[0]))
            assert norm or torch.equal(before[path].flatten().sort().values, after[path].flatten().sort().values), path
        else:
            assert torch.equal(before[path], after[path]), path


@every_method_on_every_net
def test_reported_bytes_are_the_bytes_written(name, net, tmp_path):
    result = compressed(name, net)
    size_bytes = save(result.small, tmp_path / "net.cortado", result.original)
    assert result.report.size_bytes == size_bytes == (tmp_path / "net.cortado").stat().st_size
    assert sum(row.size_bytes for row in result.report.layers) < size_bytes


@pytest.fixture(scope="module")
def without_methods():
    """Where the package of methods cannot be imported: it is told a file and a network, and says when it has run it."""
    with subprocess.Popen(
        [sys.executable, "-c", LACKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        yield process


LACKING = """
import sys
for name in ("cortado.methods", "cortado.engine.recipe", "cortado.compress", "cortado.importance"):
    sys.modules[name] = None  # importing it fails
sys.modules["cortado"] = __import__("types").ModuleType("cortado")
sys.modules["cortado"].__path__ = ["cortado"]
sys.path.insert(0, "")
import torch
torch.set_num_threads(1)
from cortado.file.artifact import load
from tests.laws.tiny_nets import BY_NAME
for line in sys.stdin:
    folder, name = line.rstrip().split("\t")
    net = BY_NAME[name]
    torch.save(load(f"{folder}/net.cortado", net.maker)(net.example), f"{folder}/outputs.pt")
    assert not any(name.startswith("cortado.methods.") for name in sys.modules)
    print("done", flush=True)
"""


@every_method_on_every_net
def test_file_restores_bit_for_bit_here_and_in_a_process_that_lacks_every_method(name, net, tmp_path, without_methods):
    result = compressed(name, net)
    save(result.small, tmp_path / "net.cortado", result.original)
    again, outputs = load(tmp_path / "net.cortado", BY_NAME[net].maker), result.small(BY_NAME[net].example)
    assert states_equal(again.state_dict(), result.small.state_dict())
    assert torch.equal(again(BY_NAME[net].example), outputs)
    without_methods.stdin.write(f"{tmp_path}\t{net}\n")
    without_methods.stdin.flush()
    assert without_methods.stdout.readline() == "done\n"
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), outputs)


@every_method_on_every_net
def test_file_of_a_restored_network_is_the_same_file(name, net):
    result = compressed(name, net)
    body = encode(result.small, result.original)
    assert encode(decode(body, result.original), result.original) == body


@every_method_on_every_net
def test_deep_copy_computes_the_same_and_shares_nothing(name, net):
    result = compressed(name, net)
    duplicate = copy.deepcopy(result.small)
    assert torch.equal(duplicate(BY_NAME[net].example), result.small(BY_NAME[net].example))
    mine = {value.data_ptr() for value in result.small.state_dict().values() if value.numel()}
    assert not mine & {value.data_ptr() for value in duplicate.state_dict().values() if value.numel()}


@pytest.mark.parametrize(("name", "net"), IDLE_PAIRS)
def test_method_without_what_it_needs_says_so_and_would_change_nothing(name, net):
    said, tiny = asked_of(name, net), BY_NAME[net]
    with pytest.raises(said.error, match=re.escape(f"({name}): {said.words}")):
        compress(tiny.make(), tiny.task(), stages_on(name, net))
    if said.error is NothingChanged:
        assert not would_change(small(name), View(after_first(name, net), tiny.make(), tiny.example), net)


@pytest.mark.parametrize(("name", "net"), [(name, net) for name, net in PAIRS if len(stages(name)) > 1])
def test_method_that_needs_what_others_leave_finds_nothing_alone(name, net):
    with pytest.raises(NothingChanged, match=rf"stage 1 \({name}\): it needs .* Leave the stage out, or "):
        compress(BY_NAME[net].make(), BY_NAME[net].task(), [small(name)])


@pytest.mark.parametrize(("name", "net"), [(name, net) for name, net in PAIRS if not small(name).ends])
def test_method_that_needs_more_once_it_has_run_would_change_nothing_more(name, net):
    """Rounds of the same rounding, a second release, a walk back from where nothing moved: each says so."""
    first = tuple(stages(name))
    said = asked_between(first, name, net)
    if said != FINDS_WORK:
        with pytest.raises(said.error, match=re.escape(f"({name}): {said.words}")):
            after_both(first, name, net)
        assert said.error is NothingChanged and not would_change(small(name), view_between(first, name, net), net)


@pytest.mark.parametrize("net", BY_NAME)
@pytest.mark.parametrize("name", [name for name in ALL_METHODS if leaves(name, Leaves.SIGNS)])
def test_signs_are_refused_where_inputs_have_one_sign(name, net):
    """Of the products between the first and the last, in the order of their calls; of all where nothing stands between."""
    network, task, read = BY_NAME[net].make(), BY_NAME[net].task(), []
    for module in network.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    network(next(task.calibration.batches(len(task.calibration)))[0])
    one_sided = [bool(values.min() >= 0 or values.max() < 0) for values in (read[1:-1] or read)]
    said = asked_of(name, net)
    assert said.error is (BadNetwork if any(one_sided) else None)
    assert ("never negative, so all its signs are the same" in said.words) == any(one_sided)


@pytest.mark.parametrize("net", BY_NAME)
def test_asking_changes_nothing(net):
    """The network that every method was asked about is one that was never asked, bit by bit."""
    view, tiny = view_after((), net), BY_NAME[net]
    for name in ALL_METHODS:
        asked(small(name), view, net)
    assert states_equal(view.network.state_dict(), tiny.make().state_dict()) and not view.touched and not view.notes
    assert all(type(layer) is original_class(layer) for layer in view.network.modules())


@pytest.mark.parametrize("name", ALL_METHODS)
def test_method_leaves_what_it_says(name):
    """Nothing else on any network, and something of it on some; other floats are what trainings and moments leave."""
    said, seen = set(small(name).leaves), set()
    for net in (net for one, net in PAIRS if one == name):
        before, after, original = after_first(name, net), compressed(name, net).small, BY_NAME[net].make()
        seen |= left_in(after, original) - left_in(before, original)
        seen |= {Leaves.RELEASED} if lost_forms(before, after) else set()
    assert seen <= said
    assert bool(seen) == bool(said - {Leaves.FLOATS})
    assert said and (Leaves.FLOATS in said or not small(name).trains)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_wrong_values_of_every_knob_are_refused_in_words(name):
    for knob, one in knobs_of(type(small(name))).items():
        low, high, one_of = (one.facts.get(key) for key in ("low", "high", "one_of"))
        wrong = [] if knob == "teacher" else [object()] if knob == "objectives" else [object(), ["x"]]
        wrong += [low - 1, float("nan")] if low is not None else []
        wrong += [high + 1] if high is not None else []
        wrong += ["no such word"] if one_of else []
        for value in wrong:
            with pytest.raises(BadValue, match=f"{name}: {knob} must .* got "):
                small(name, **{knob: value})


@pytest.mark.parametrize("name", ALL_METHODS)
def test_pattern_that_matches_nothing_is_refused_with_near_names(name):
    net = BY_NAME["residual"]
    with pytest.raises(BadValue, match=r"where: 'frist' matches no weight .* Similar names: .*first"):
        small(name, where="frist").apply(View(net.make(), net.make(), net.example), net.task())
