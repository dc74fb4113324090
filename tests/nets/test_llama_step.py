"""A decoder token by token: it says what the whole text says, in PyTorch and in a file of few bits."""

import pytest
import torch

import cortado
from cortado.errors import BadValue
from cortado.lowering.lower import lowered
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.catalog import by_name
from cortado.nets.llama_step import LlamaStep, continued, write_memory
from cortado.network.view import View
from cortado.runtimes.onnxruntime import Onnxruntime

TOKENS = torch.tensor([[3, 9, 27, 1, 0, 11], [5, 5, 2, 30, 31, 7]])


def small(**more):
    torch.manual_seed(0)
    return by_name("llama", words=32, width=64, layers=2, heads=4, shared=2, inner=96, positions=16, **more).eval()


def logits_of(run, memory):
    """The logits after each token of the texts (2, 6, words)."""
    found = []
    for number in range(TOKENS.shape[1]):
        place = torch.full((2,), number)
        logits, keys, values = map(torch.as_tensor, run(TOKENS[:, number : number + 1], place, *memory))
        write_memory(memory, place, keys, values)
        found.append(logits)
    return torch.stack(found, 1)


@pytest.mark.parametrize("places", [None, 9])
def test_steps_say_what_the_whole_text_says(places):
    net = small()
    step = LlamaStep(net, places)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(step, step.memory(2)), net(TOKENS), rtol=1e-4, atol=1e-5)


def test_texts_may_be_at_different_places():
    net = small()
    step = LlamaStep(net)
    memory, ahead = step.memory(2), torch.tensor([0, 0])
    with torch.no_grad():
        write_memory(memory, ahead, *step(TOKENS[:, :1], ahead, *memory)[1:])
        first = [part[:1] for part in memory]
        write_memory(first, ahead[:1] + 1, *step(TOKENS[:1, 1:2], ahead[:1] + 1, *first)[1:])
        logits, *_ = step(torch.tensor([[27], [5]]), torch.tensor([2, 1]), *memory)
        wanted = net(TOKENS[:1, :3])[0, -1], net(TOKENS[1:, :2])[0, -1]
    torch.testing.assert_close(logits, torch.stack(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not Onnxruntime().lowers(), reason="onnxruntime is not installed")
def test_file_of_4_bits_keeps_its_codes_packed_and_says_the_same(tmp_path):
    net = small()
    QuantizeWeights(bits=4, per="group", group=32).apply(View(net, net, TOKENS), None)
    step = LlamaStep(net)
    example = (TOKENS[:, :1], torch.tensor([0, 0]), *step.memory(2))
    file = Onnxruntime().lower(lowered(step, example), example, tmp_path)
    assert file.read_bytes().count(b"MatMulNBits") > 2 * 7
    run = Onnxruntime().load(file, 1)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(run, step.memory(2)), net(TOKENS), rtol=1e-3, atol=1e-4)
        words = list(continued(run, step.memory(1), [3, 9, 27], 5))
        assert words == list(continued(step, step.memory(1), [3, 9, 27], 5))
        whole = [3, 9, 27]
        for _ in range(5):
            whole.append(int(net(torch.tensor([whole]))[0, -1].argmax()))
    assert words == whole[3:]


@pytest.mark.parametrize(("text", "count"), [([], 2), ([1] * 10, 8)])
def test_text_that_does_not_fit_is_refused(text, count):
    step = LlamaStep(small())
    with pytest.raises(BadValue, match="llama: a text of .* do not fit"):
        list(continued(step, step.memory(1), text, count))


def test_more_places_than_positions_are_refused():
    with pytest.raises(BadValue, match=r"places must lie in 1\.\.16"):
        LlamaStep(small(), 17)
    assert cortado.profile(
        LlamaStep(small(), 4), (TOKENS[:, :1], torch.zeros(2, dtype=torch.long), *LlamaStep(small(), 4).memory(2))
    )
