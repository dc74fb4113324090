"""Silero VAD at 8 kHz, where somebody speaks, from the package silero-vad; spoken digits with gaps between them, in noise."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.strangers.package import file
from bench.strangers.speech import digits_with_gaps, ranked
from cortado import Data, Metric, Numbers, Task

CHUNK, CONTEXT, PARTS = 256, 32, ("weight", "bias")
"""Samples of a step, and of what is heard again before it; parts of a layer."""


class Vad(nn.Module):
    """Waves (N, samples) to logits of speech in each chunk of 256 samples (N, chunks)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(130, 1, 128))
        sizes = ((65, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        self.encoder = nn.Sequential(*(nn.Conv1d(one, two, 3, step, 1) for one, two, step in sizes))
        self.rnn, self.head = nn.LSTM(128, 128, batch_first=True), nn.Linear(128, 1)

    def forward(self, waves: Tensor) -> Tensor:
        heard = functional.pad(waves, (CONTEXT, 0)).unfold(1, CHUNK + CONTEXT, CHUNK)
        chunks = functional.pad(heard.flatten(0, 1)[:, None], (0, 32), mode="reflect")
        real, imaginary = functional.conv1d(chunks, self.basis, stride=64).chunk(2, 1)
        activation = (real.square() + imaginary.square() + 1e-20).sqrt()
        for layer in self.encoder:
            activation = layer(activation).relu()
        steps = self.rnn(activation.mean(2).unflatten(0, (waves.shape[0], -1)))[0]
        return self.head(steps.relu()).squeeze(2)


def vad() -> nn.Module:
    """Return the network with its published weights."""
    state = torch.jit.load(file("silero_vad", "data", "silero_vad.jit")).state_dict()
    own = {name.removeprefix("_model_8k."): value for name, value in state.items() if name.startswith("_model_8k.")}
    names = {"stft.forward_basis_buffer": "basis"} | {f"decoder.decoder.2.{one}": f"head.{one}" for one in PARTS}
    names |= {f"encoder.{n}.reparam_conv.{one}": f"encoder.{n}.{one}" for n in range(4) for one in PARTS}
    names |= {f"decoder.rnn.{part}": f"rnn.{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    found = {names[name]: value for name, value in own.items()}
    network = Vad()
    network.load_state_dict(found | {"head.weight": found["head.weight"].squeeze(2)})
    return network.eval()


def job():
    """Return network and task."""
    loss = functional.binary_cross_entropy_with_logits
    metric = Metric(
        "area under the ROC curve", "%", lambda outputs, targets: torch.stack([outputs, targets], 2), value=ranked
    )
    parts = [Data(*digits_with_gaps(number)) for number in range(3)]
    return vad(), Task(*parts, loss=loss, metric=metric, outputs=Numbers(), batch=16, name="speech with gaps")
