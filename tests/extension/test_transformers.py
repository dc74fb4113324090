"""Networks of transformers as they come: called with dicts, they return their own output classes."""

import pytest
import torch
from torch import nn

import cortado
from cortado.engine.compress import compress
from cortado.network.profile.profile import profile
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.outputs import Outputs
from cortado.task.outputs.tokens import Tokens
from cortado.task.perplexity import perplexity
from cortado.task.task import Task

transformers = pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 12,
}  # fmt: skip


def classifier() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, num_labels=3))


def encoder() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**SMALL))


def decoder() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=1))


def class_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.logits, targets[:, 0] % 3)


def size_loss(outputs, targets):
    return outputs.pooler_output.square().mean()


def text_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def right(outputs, targets):
    return (outputs.logits.argmax(1) == targets[:, 0] % 3).float()


NETS: dict[str, tuple] = {
    "classifier": (classifier, class_loss, Metric(each=right), {"outputs": Classes()}),
    "encoder": (encoder, size_loss, None, {"outputs": {"last_hidden_state": Numbers(), "pooler_output": Numbers()}}),
    "decoder": (decoder, text_loss, perplexity(), {"outputs": Tokens()}),
}


def made(name: str) -> tuple[nn.Module, Task]:
    """A tiny network with random weights, and a task of random tokens, some of them padded."""
    make, loss, metric, how = NETS[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = make().eval()
    parts = []
    for seed in range(3):
        tokens = torch.randint(0, 50, (24, 8), generator=torch.Generator().manual_seed(seed))
        mask = torch.ones_like(tokens)
        mask[::3, 6:] = 0
        parts.append(Data(transformers.BatchEncoding({"input_ids": tokens, "attention_mask": mask}), tokens))
    how = how if metric is None else {**how, "metric": metric}
    return network, Task(*parts, loss=loss, device="cpu", **how)


@pytest.mark.parametrize("name", list(NETS))
def test_a_network_of_transformers_is_quantized_stored_and_exported(name, tmp_path):
    network, task = made(name)
    assert profile(network, task.example).total("weights").value > 1000
    small, report = compress(network, task, "quantize/weights bits=7 | quantize/activations", limits=["size <= 30 KB"])
    assert report.met and report.size_bytes < report.original_bytes / 3
    cortado.save(small, tmp_path / "small.cortado", network)
    again = cortado.load(tmp_path / "small.cortado", network)
    inputs, _ = next(task.test.batches(4))
    for one, other in zip(again(**inputs).to_tuple()[:1], small(**inputs).to_tuple()[:1], strict=True):
        assert torch.equal(one, other)
    row = cortado.export(network, task, "onnxruntime", tmp_path / "out")
    assert row.difference < 1e-4 and row.score == pytest.approx(row.torch_score, abs=1e-3)
    assert (row.same_top == 1) == (name != "encoder")


def test_outputs_of_an_exported_network_keep_their_names(tmp_path):
    import onnxruntime

    network, task = made("encoder")
    cortado.export(network, task, "onnxruntime", tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [port.name for port in session.get_outputs()] == ["last_hidden_state", "pooler_output"]


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_network_of_transformers_is_planned(name):
    network, task = made(name)
    assert isinstance(task.outputs, Outputs)
    found = cortado.plan(network, task, ["size <= 12 KB"], time_limit="10 s")
    assert found.size_accuracy_curve.measured and all(one.kl >= 0 for one in found.size_accuracy_curve.measured)
