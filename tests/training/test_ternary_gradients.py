"""Ternary gradients: right on average, 2 bits a value, the same weights in all processes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed

from cortado.errors import BadValue
from cortado.nets.resnet import resnet_20
from cortado.training.loop import train
from cortado.training.ternary_gradients import (
    TernaryState,
    clipped,
    drawn_signs,
    packed_signs,
    ternary_hook,
    unpacked_signs,
)
from cortado.training.training import Training
from tests.fresh import forked
from tests.training.test_distributed import TRAINING, made, values

DRAWS = 4000
PROCESSES = 4


def test_the_mean_over_draws_is_the_gradient():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(60, generator=generator, dtype=torch.float64)
    scale = 1.3 * gradient.abs().max()  # another process has a larger one
    draws = torch.stack([drawn_signs(gradient, scale, generator) for _ in range(DRAWS)])
    assert set(draws.unique().tolist()) == {-1, 0, 1}
    chance = gradient.abs() / scale
    error = (draws.double().mean(0) * scale - gradient).abs()
    assert bool((error < 5 * scale * (chance * (1 - chance) / DRAWS).sqrt()).all())


def test_two_processes_draw_different_numbers():
    gradient = torch.full((100,), 0.5)
    first, second = (TernaryState.of(torch.device("cpu"), rank, 2).generator for rank in range(2))
    assert not torch.equal(drawn_signs(gradient, torch.ones(()), first), drawn_signs(gradient, torch.ones(()), second))


def test_a_gradient_of_zeros_stays_and_the_largest_value_is_always_sent():
    generator = torch.Generator().manual_seed(0)
    assert not drawn_signs(torch.zeros(5), torch.zeros(()), generator).any()
    for _ in range(50):
        assert int(drawn_signs(torch.tensor([0.1, -2.0]), torch.tensor(2.0), generator)[1]) == -1


def test_outliers_are_clipped_at_two_and_a_half_deviations():
    gradient = torch.cat([torch.ones(99), torch.tensor([-50.0])])
    most = 2.5 * float(gradient.square().mean()) ** 0.5
    assert most < 50 and float(clipped(gradient)[-1]) == pytest.approx(-most)
    assert torch.equal(clipped(gradient)[:-1], gradient[:-1])


@pytest.mark.parametrize("bias", [[0.3], [-0.2, -0.2, -0.2]])
def test_a_bias_of_equal_values_is_not_clipped(bias):
    assert torch.equal(clipped(torch.tensor(bias)), torch.tensor(bias))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1001])
def test_packing_is_undone_exactly_at_two_bits_a_value(count):
    signs = torch.randint(-1, 2, (count,), dtype=torch.int8, generator=torch.Generator().manual_seed(count))
    assert packed_signs(signs).numel() == -(-count // 4) and packed_signs(signs).dtype == torch.uint8
    assert torch.equal(unpacked_signs(packed_signs(signs), count), signs)


class Bucket:
    """What a hook is given: gradients side by side in one buffer."""

    def __init__(self, gradients: list[torch.Tensor]) -> None:
        self.whole, self.parts = torch.cat([one.flatten() for one in gradients]), gradients

    def buffer(self) -> torch.Tensor:
        return self.whole

    def gradients(self) -> list[torch.Tensor]:
        return self.parts


@pytest.fixture
def one_process(tmp_path):
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_resnet_20_is_sent_in_a_fourteenth_of_the_bytes(one_process):
    gradients = [torch.randn(one.shape) for one in resnet_20().parameters()]
    state, bucket = TernaryState.of(torch.device("cpu"), 0, 1), Bucket(gradients)
    whole = bucket.whole.clone()
    ternary_hook(state, bucket).wait()
    assert state.sent == -(-len(whole) // 4) + 4 * len(gradients)
    assert 4 * len(whole) >= 14 * state.sent
    for one, sent in zip(gradients, bucket.whole.split([one.numel() for one in gradients]), strict=True):
        scale = clipped(one).abs().max()
        assert bool(((sent == 0) | (sent.abs() == scale)).all()) and bool((sent * one.flatten() >= 0).all())


def test_a_gradient_that_is_not_finite_is_not_hidden(one_process):
    bucket = Bucket([torch.tensor([1.0, float("nan"), 2.0])])
    ternary_hook(TernaryState.of(torch.device("cpu"), 0, 1), bucket).wait()
    assert bool(bucket.whole.isnan().all())


def test_hooks_and_split_parameters_exclude_each_other():
    with pytest.raises(BadValue, match="hook must be none with shard"):
        Training(hook="ternary", shard=True)


def test_four_processes_end_with_equal_weights(tmp_path):
    all_four = forked("tests.training.test_ternary_gradients:child", PROCESSES, tmp_path)
    assert all_four.returncode == 0, all_four.stderr[-3000:]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    network, _, _ = made("task")
    for one in found:
        assert torch.equal(one["values"], found[0]["values"]) and one["notes"] == found[0]["notes"]
    assert not torch.allclose(found[0]["values"], values(network), atol=1e-3)
    # 431,080 values, 3 steps: 2 bits a value and 4 bytes for each of 8 tensors.
    assert found[0]["notes"] == ["323 KB of gradients sent by each process, 5.17 MB as float32"]


def child(rank: int, folder: str) -> None:
    """Train as one of four processes, and keep what it has afterwards."""
    network, task, _ = made("task")
    trained = train(network, task, replace(TRAINING, hook="ternary"))
    torch.save({"values": values(network), "notes": trained.traffic.notes()}, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
