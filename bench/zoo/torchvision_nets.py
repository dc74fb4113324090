"""torchvision's networks: one small member of each family for classification, segmentation and video."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bench.rivals.optional import torchvision
from bench.zoo.entry import Entry

CNN: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("alexnet", 64, {}),
    ("vgg11_bn", 32, {}),
    ("resnet18", 64, {}),
    ("resnet50", 64, {}),
    ("resnext50_32x4d", 64, {}),
    ("wide_resnet50_2", 64, {}),
    ("densenet121", 64, {}),
    ("squeezenet1_1", 64, {}),
    ("inception_v3", 96, {"aux_logits": False}),
    ("googlenet", 64, {"aux_logits": False}),
    ("shufflenet_v2_x0_5", 64, {}),
    ("mobilenet_v2", 64, {}),
    ("mobilenet_v3_small", 64, {}),
    ("mobilenet_v3_large", 64, {}),
    ("mnasnet0_5", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("efficientnet_v2_s", 64, {}),
    ("regnet_x_400mf", 64, {}),
    ("regnet_y_400mf", 64, {}),
    ("convnext_tiny", 64, {}),
)
ATTENTION: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("vit_b_16", 64, {"image_size": 64}),
    ("swin_t", 64, {}),
    ("swin_v2_t", 64, {}),
)
SEGMENTATION: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("fcn_resnet50", 64, {}),
    ("deeplabv3_mobilenet_v3_large", 64, {}),
    ("lraspp_mobilenet_v3_large", 64, {}),
)
INIT = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


def maker(name: str, options: dict[str, Any], family: str) -> Callable[[], nn.Module]:
    """Makes a network of torchvision with 10 classes and random weights."""

    def make() -> nn.Module:
        given = {**options, **INIT.get(name, {}), "num_classes": 10, "weights": None}
        if family == "torchvision segmentation":
            given["weights_backbone"] = None
        return torchvision().get_model(name, **given)

    return make


def max_vit() -> nn.Module:
    """The smallest MaxViT; its named constructor takes pictures of 224 pixels only."""
    blocks = {"block_channels": [64, 128, 256, 512], "block_layers": [2, 2, 5, 2]}
    options = {"input_size": (64, 64), "partition_size": 2, "stem_channels": 64, "head_dim": 32}
    return torchvision().MaxVit(**options, **blocks, stochastic_depth_prob=0.2, num_classes=10)


def entries() -> list[Entry]:
    """All of them."""
    listed = (
        ("torchvision CNN", CNN),
        ("torchvision attention", ATTENTION),
        ("torchvision segmentation", SEGMENTATION),
    )
    found = [
        Entry(f"torchvision.{name}", family, maker(name, options, family), ((3, size, size),))
        for family, members in listed
        for name, size, options in members
    ]
    return [*found, Entry("torchvision.maxvit_t", "torchvision attention", max_vit, ((3, 64, 64),))]
