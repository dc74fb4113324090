"""The built-in networks by name."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import nn

from cortado.errors import BadValue
from cortado.nets.alexnet import alexnet
from cortado.nets.bi_real_resnet import bi_real_resnet_20
from cortado.nets.digits import digits_net
from cortado.nets.efficientnet import efficientnet
from cortado.nets.espnet import espnet
from cortado.nets.googlenet import googlenet
from cortado.nets.lenet import lenet_5, lenet_300_100
from cortado.nets.llama import dreams_llama, llama
from cortado.nets.mlp import mlp_1024, mlp_1024_signed
from cortado.nets.mobilenet import mobilenet
from cortado.nets.mobilenet_folded import mobilenet_v1_folded, mobilenet_v2_folded
from cortado.nets.mobilenet_v2 import mobilenet_v2
from cortado.nets.msdnet import msdnet
from cortado.nets.resnet import cifar_resnet, resnet_20, resnet_56
from cortado.nets.resnet_8 import resnet_8
from cortado.nets.squeezenet import squeezenet
from cortado.nets.ssd_mobilenet import ssd_mobilenet_v1, ssdlite_mobilenet_v1, ssdlite_mobilenet_v2
from cortado.nets.tiny_darknet import tiny_darknet
from cortado.nets.vgg import vgg_16, vgg_16_cifar, vgg_19, vgg_f, vgg_m, vgg_s
from cortado.nets.yolo import yolo

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    make.__name__: make
    for make in (
        lenet_300_100,
        lenet_5,
        mlp_1024,
        mlp_1024_signed,
        digits_net,
        resnet_8,
        resnet_20,
        resnet_56,
        cifar_resnet,
        bi_real_resnet_20,
        msdnet,
        vgg_16_cifar,
        vgg_16,
        vgg_19,
        vgg_f,
        vgg_m,
        vgg_s,
        alexnet,
        googlenet,
        squeezenet,
        mobilenet,
        mobilenet_v2,
        efficientnet,
        mobilenet_v1_folded,
        mobilenet_v2_folded,
        tiny_darknet,
        espnet,
        ssdlite_mobilenet_v1,
        ssdlite_mobilenet_v2,
        ssd_mobilenet_v1,
        yolo,
        llama,
        dreams_llama,
    )
}


def by_name(name: str, **options: Any) -> nn.Module:
    """Return the network `name`, made with the options of its function, e.g. `by_name("mobilenet", width=0.5)`.

    Raises BadValue for an unknown network or option.
    """
    make = maker_by_name(name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            has = f"It has: {', '.join(known)}." if known else "It has none."
            raise BadValue(f"nets: {name} has no option {option!r}. {meant}{has}")
    return make(**options)


def maker_by_name(name: str) -> Callable[..., nn.Module]:
    """Return the maker of a network.  Raises BadValue, with a near name, for an unknown one."""
    if name not in NETWORKS:
        close = get_close_matches(name, NETWORKS, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise BadValue(f"nets: there is no network {name!r}.{hint} Known: {', '.join(NETWORKS)}.")
    return NETWORKS[name]
