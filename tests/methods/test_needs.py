"""What methods need: the sentence where it is missing, and when a second run finds nothing more."""

import pytest

from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, begin
from cortado.errors import NothingChanged
from cortado.methods.needs import Need
from cortado.methods.prune.weights import PruneWeights
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


@pytest.mark.parametrize(
    "stage",
    [
        "prune/weights", "prune/positions", "quantize/weights clip=range",
        "quantize/activations", "quantize/floats", "quantize/clip", "quantize/ternary",
        "quantize/binary_connect", "simplify/norms", "rewind", "release", "finalize", "prune/units",
    ],
)  # fmt: skip
def test_second_run_needs_more(stage):
    """Each after what gives it something to do the first time, without moment matching in between."""
    before = {
        "rewind": "finetune epochs=0.25", "release": "quantize/weights", "finalize": "quantize/ternary",
        "prune/units": "prune/weights keep=0.2 by=random",
    }  # fmt: skip
    stages = read_recipe(" | ".join([*([before[stage]] if stage in before else []), stage])).stages
    state = begin(NET.make(), NET.example)
    for one in stages:
        state = apply_stage(one, state, NET.task(), match_moments=False)
    with pytest.raises(NothingChanged, match=rf"{stages[-1].name()}: it needs .*, and Residual has none under where"):
        apply_stage(stages[-1], state, NET.task())


@pytest.mark.parametrize("method", ["finetune", "distill/logits", "distill/peers"])
@pytest.mark.parametrize(
    ("net", "knobs"), [("mlp", "lr=0"), ("residual", "lr=0 statistics=kept"), ("residual", "epochs=0")]
)
def test_training_that_moves_nothing_is_refused_before_it_starts(method, net, knobs):
    with pytest.raises(
        NothingChanged, match=r"needs a parameter or a statistic that its training moves, .* raise epochs"
    ):
        compress(BY_NAME[net].make(), BY_NAME[net].task(), f"{method} {knobs}")


def test_training_without_a_rate_moves_statistics():
    _, report = compress(NET.make(), NET.task(), "finetune epochs=0.5 lr=0")
    assert report.stages[-1].name == "finetune"


class Counting(PruneWeights):
    """Counts what is asked and what is done."""

    needs = (Need("a thing", lambda method, view, task: LOG.append("asked") or method.keep < 0.5, "have keep=0.4"),)

    def apply(self, view, task):
        LOG.append("applied")
        super().apply(view, task)


LOG: list[str] = []


def test_needs_are_asked_before_a_method_is_applied_and_not_without_check():
    LOG.clear()
    with pytest.raises(
        NothingChanged, match=r"stage 7: it needs a thing, and Residual has none under where: 'first'\. "
    ):
        apply_stage(Counting(where="first"), begin(NET.make(), NET.example), NET.task(), where="stage 7")
    assert LOG == ["asked"]
    apply_stage(Counting(keep=0.4), begin(NET.make(), NET.example), NET.task())
    apply_stage(Counting(), begin(NET.make(), NET.example), NET.task(), check=False)
    assert LOG == ["asked", "asked", "applied", "applied"]
