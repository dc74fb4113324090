"""Networks of several widths, depths, resolutions and strides: the sizes that the papers say, and words for impossible ones."""

import pytest
import torch

from cortado.errors import BadValue
from cortado.nets.catalog import by_name
from cortado.nets.efficientnet import VARIANTS
from cortado.nets.scaled import channels_at, repeats_at, strides_at
from cortado.network.profile.profile import profile


def made(name, pixels=32, **options):
    with torch.device("meta"):
        network = by_name(name, **options)
    return network, profile(network, torch.zeros(1, 3, pixels, pixels))


def test_channels_are_multiples_of_eight_and_never_far_below():
    assert [channels_at(count, 1.4) for count in (16, 24, 32, 64, 96, 160, 320)] == [24, 32, 48, 88, 136, 224, 448]
    assert channels_at(24, 0.35) == 8 and channels_at(16, 0.1) == 8
    assert all(
        channels_at(count, width / 10) >= 0.9 * count * width / 10 for count in range(8, 99) for width in range(5, 30)
    )


def test_depths_round_up_and_exact_ones_stay():
    assert [repeats_at(3, depth) for depth in (1.0, 1.1, 1.2, 2.0)] == [3, 4, 4, 6] and repeats_at(5, 0.6) == 3


def test_first_strides_go_where_less_is_wanted():
    assert strides_at((2, 1, 2, 2, 2, 1, 2, 1), 8) == (1, 1, 1, 2, 2, 1, 2, 1)
    assert strides_at((2, 1, 2), 4) == (2, 1, 2) and strides_at((2, 1, 2), 1) == (1, 1, 1)


# Published numbers of parameters, norms and biases included.
PARAMETERS = {1: 7_794_184, 2: 9_109_994, 3: 12_233_232, 4: 19_341_616, 5: 30_389_784, 6: 43_040_704, 7: 66_347_960}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_efficientnets_have_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        network = by_name("efficientnet", variant=variant)
    assert sum(one.numel() for one in network.parameters()) == PARAMETERS[variant]


def test_compound_scale_of_the_paper_doubles_the_multiply_adds():
    """1.2 * 1.1^2 * 1.15^2 is near 2; B0 to B1 has less, since blocks and channels are whole."""
    assert pytest.approx(1.92, abs=0.01) == 1.2 * 1.1**2 * 1.15**2
    costs = [made("efficientnet", VARIANTS[one][2], variant=one)[1].total("multiply_adds").value for one in (0, 1)]
    assert 1.7 < costs[1] / costs[0] < 1.92


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet"])
def test_small_pictures_keep_their_places_and_resolutions_are_resized_to(name):
    network, table = made(name, classes=10, stride=8, width=0.35)
    last = [row for row in table.rows if row.path.startswith("head")][0]
    channels = network.linear.in_features
    assert last.activations == channels * 4 * 4
    half = made(name, classes=10, stride=8, width=0.35, resolution=16)[1]
    assert half.total("multiply_adds").value < 0.3 * table.total("multiply_adds").value
    small = by_name(name, classes=10, stride=8, width=0.1, resolution=16).eval()
    images = torch.randn(2, 3, 32, 32)
    smaller = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear")
    torch.testing.assert_close(small(images), small(smaller))


def test_mobilenet_keeps_places_of_small_pictures():
    network, table = made("mobilenet", classes=10, stride=4, width=0.25)
    assert table.row("blocks.12.pointwise").activations == 256 * 8 * 8


def test_squeezenet_follows_its_metaparameters():
    network, table = made("squeezenet", 227, base=64, step=32, every=2, squeeze=0.5, large=0.25)
    assert [network.get_submodule(f"fire{n}.expand3x3").out_channels for n in range(2, 10)] == [
        16,
        16,
        24,
        24,
        32,
        32,
        40,
        40,
    ]
    assert network.fire4.squeeze.out_channels == 48 and network.conv10.in_channels == 160
    small = by_name("squeezenet", classes=10, width=0.25, small=True, norms=True, bypass=True).eval()
    assert small(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    # Every second module has as many inputs as outputs.
    assert [small.get_submodule(f"fire{n}").bypass for n in range(2, 10)] == [False, True] * 4


def test_bypass_adds_the_input():
    small = by_name("squeezenet", classes=10, width=0.25, small=True, bypass=True).eval()
    fire, values = small.fire3, torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        for layer in (fire.expand1x1, fire.expand3x3):
            layer.weight.zero_()
            layer.bias.zero_()
        assert torch.equal(fire(values), torch.relu(values))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mobilenet_v2", {"width": 0.0}, "mobilenet_v2: width and depth must be above 0"),
        ("efficientnet", {"variant": 8}, r"variant must lie in 0\.\.7, got 8"),
        ("efficientnet", {"stride": 3}, "stride one of 32, 16"),
        ("mobilenet", {"stride": 5}, "stride one of 32, 16"),
        ("squeezenet", {"large": 1.0}, r"large in 0\.\.1"),
        ("cifar_resnet", {"depth": 0}, "width and depth must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused_in_words(name, options, words):
    with pytest.raises(BadValue, match=words):
        by_name(name, **options)
