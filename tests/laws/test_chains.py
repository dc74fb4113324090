"""Longer chains: forms survive trainings, and are exported."""

import pytest
import torch

from cortado.engine.compress import compress
from cortado.network.weight import parameter_places
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from tests.laws.small_methods import small
from tests.laws.tiny_nets import BY_NAME, TINY_NETS
from tests.laws.two_stages import after_both

CHAINS = {
    "masked(dense)": [small("prune/weights", keep=0.4)],
    "masked(codebook)": [small("prune/weights", keep=0.4), small("share/kmeans", bits=3)],
    "masked(quantized)": [small("prune/weights", keep=0.4), small("quantize/weights", bits=4)],
    "codebook": [small("share/kmeans", bits=3)],
    "quantized": [small("quantize/weights", bits=4)],
    "masked(codebook), the other way": [small("share/kmeans", bits=3), small("prune/weights", keep=0.4)],
}


def facts_of(form: Form):
    """What fine-tuning must keep: masks and codes, one inside the other."""
    if isinstance(form, Masked):
        return ("mask", form.mask.clone(), facts_of(form.kept))
    if isinstance(form, Codebook):
        # Which entries share a value; the file may number the values again.
        return ("members", first_places(form.codes))
    if isinstance(form, Quantized):
        return ("codes", form.codes.clone())
    return ("floats", None)


def first_places(codes):
    """For each entry the first place that has the same code."""
    flat = codes.flatten().tolist()
    first = {}
    return torch.tensor([first.setdefault(code, place) for place, code in enumerate(flat)])


def same(one, other) -> bool:
    return one[0] == other[0] and all(
        same(a, b) if isinstance(a, tuple) else a is None or torch.equal(a, b)
        for a, b in zip(one[1:], other[1:], strict=True)
    )


@pytest.mark.parametrize("net", [net.name for net in TINY_NETS])
@pytest.mark.parametrize("chain", list(CHAINS))
@pytest.mark.parametrize("trained", ["finetune", "distill/logits"])
def test_training_keeps_masks_codes_and_books(chain, net, trained):
    two, moved = after_both(CHAINS[chain], trained, net, epochs=1.0, lr=0.01), 0
    for one, other in zip(parameter_places(two.between), parameter_places(two.made), strict=True):
        assert same(facts_of(one.form), facts_of(other.form)), one.path
        moved += not torch.equal(one.dense(), other.dense())
    assert moved > 0


@pytest.mark.parametrize("net", [net.name for net in TINY_NETS])
def test_exported_program_agrees_with_eager(net):
    tiny = BY_NAME[net]
    chain = [small("prune/weights", keep=0.4), small("share/kmeans", bits=3), small("finetune")]
    if net == "depthwise":
        chain = [small("quantize/weights", bits=4, symmetric=False), small("simplify/norms")]
    made, _ = compress(tiny.make(), tiny.task(), chain)
    exported = torch.export.export(made, (tiny.example,)).module()
    torch.testing.assert_close(exported(tiny.example), made(tiny.example), rtol=1e-5, atol=1e-6)
