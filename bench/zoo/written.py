"""The networks written for the zoo, and those of cortado.nets, as entries."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bench.zoo import pictures, sequences
from bench.zoo.entry import Entry
from cortado.nets.catalog import by_name

IMAGE = (3, 16, 16)
TOKENS = (12, 50, "whole")


def by_habit(habit: Callable[[int], nn.Module], channels: int) -> Callable[[], nn.Module]:
    """Two blocks of a habit between a first convolution and the head."""
    return lambda: pictures.residual(habit(channels), habit(channels), channels=channels)


def headed(body: Callable[[], nn.Module], channels: int) -> Callable[[], nn.Module]:
    """A body under the usual head."""
    return lambda: pictures.Headed(body(), channels)


PICTURES: tuple[tuple[str, Callable[[], nn.Module], tuple[tuple[Any, ...], ...]], ...] = (
    ("u_net", pictures.UNet, (IMAGE,)),
    ("channel_shuffle", by_habit(pictures.Shuffled, 24), (IMAGE,)),
    ("halves_and_shuffle", by_habit(pictures.Halves, 24), (IMAGE,)),
    ("unequal_split", headed(pictures.Split, 24), (IMAGE,)),
    ("squeeze_excitation", by_habit(pictures.Squeezed, 16), (IMAGE,)),
    ("layer_scale", by_habit(pictures.Scaled, 16), (IMAGE,)),
    ("depthwise_multiplier_2", headed(pictures.Multiplied, 16), (IMAGE,)),
    ("block_run_three_times", headed(pictures.Looped, 24), (IMAGE,)),
    ("gated_linear_units", headed(pictures.Gated, 20), (IMAGE,)),
    ("dense_growth", headed(pictures.Grown, 35), (IMAGE,)),
    ("tied_autoencoder", pictures.TiedAutoencoder, ((64,),)),
    ("two_inputs_one_encoder", pictures.TwoEyes, (IMAGE, IMAGE)),
    ("pixel_shuffle", pictures.Upscaled, (IMAGE,)),
    ("flatten_and_linear", pictures.fully_connected, (IMAGE,)),
    ("group_and_instance_norm", pictures.group_normed, (IMAGE,)),
    ("cnn_1d", pictures.one_axis, ((4, 60),)),
    ("cnn_3d", pictures.three_axes, ((3, 8, 12, 12),)),
    ("transposed_convolutions", pictures.generator, ((20,),)),
    ("mlp_mixer", sequences.Mixer, (IMAGE,)),
)
SEQUENCES: tuple[tuple[str, Callable[[], nn.Module], tuple[tuple[Any, ...], ...]], ...] = (
    ("transformer_encoder", sequences.StockEncoder, (TOKENS,)),
    ("transformer_encoder_norm_first", lambda: sequences.StockEncoder(norm_first=True), (TOKENS,)),
    ("transformer", sequences.StockTransformer, ((9, 32), (7, 32))),
    ("llama_like", sequences.LlamaLike, (TOKENS,)),
    ("gpt_like", sequences.GptLike, (TOKENS,)),
    ("lstm", lambda: sequences.RecurrentClassifier(nn.LSTM, layers=2), (TOKENS,)),
    ("lstm_both_ways", lambda: sequences.RecurrentClassifier(nn.LSTM, both_ways=True), (TOKENS,)),
    ("gru", lambda: sequences.RecurrentClassifier(nn.GRU), (TOKENS,)),
    ("gru_both_ways", lambda: sequences.RecurrentClassifier(nn.GRU, layers=2, both_ways=True), (TOKENS,)),
    ("tanh_rnn", lambda: sequences.RecurrentClassifier(nn.RNN), (TOKENS,)),
    ("text_cnn", sequences.TextCnn, (TOKENS,)),
    ("gru_translator", sequences.Translator, ((8, 40, "whole"), (6, 40, "whole"))),
)
OURS: tuple[tuple[str, dict[str, Any], tuple[int, ...]], ...] = (
    ("lenet_300_100", {}, (1, 28, 28)),
    ("lenet_5", {}, (1, 28, 28)),
    ("digits_net", {}, (1, 8, 8)),
    ("resnet_20", {}, (3, 32, 32)),
    ("resnet_56", {}, (3, 32, 32)),
    ("vgg_16_cifar", {"width": 0.5}, (3, 32, 32)),
    ("alexnet", {"classes": 10}, (3, 227, 227)),
    ("vgg_f", {"classes": 10}, (3, 224, 224)),
    ("googlenet", {"classes": 10}, (3, 224, 224)),
    ("squeezenet", {"classes": 10}, (3, 224, 224)),
    ("mobilenet", {"classes": 10, "width": 0.5, "resolution": 64}, (3, 64, 64)),
)


def entries() -> list[Entry]:
    """All of them.  VGG-16, VGG-19, VGG-M and VGG-S of cortado.nets are left out: the classes of others here, larger."""
    found = [Entry(name, "written here, pictures", make, inputs) for name, make, inputs in PICTURES]
    found += [Entry(name, "written here, sequences", make, inputs) for name, make, inputs in SEQUENCES]
    for name, options, shape in OURS:
        found.append(Entry(f"cortado.{name}", "cortado.nets", maker(name, options), (shape,)))
    return found


def maker(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    """Makes a network of cortado.nets."""
    return lambda: by_name(name, **options)
