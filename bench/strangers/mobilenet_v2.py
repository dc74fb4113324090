"""MobileNet V2, as published for the Edge TPU: its integers as floats; 500 ImageNet pictures."""

from cortado.nets.mobilenet_folded import mobilenet_v2_folded
from cortado.tasks import imagenet
from cortado.tasks.pixels import Normalise


def job():
    """Return network and task."""
    picture = imagenet.Picture(normalise=Normalise(mean=(0.5,) * 3, std=(0.5,) * 3))
    return mobilenet_v2_folded(weights=True).eval(), imagenet.task(picture=picture)
