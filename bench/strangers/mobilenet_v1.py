"""MobileNet V1, 0.75 as wide, 192 pixels, as published for the Edge TPU: its integers as floats; 500 ImageNet pictures."""

from cortado.nets.mobilenet_folded import mobilenet_v1_folded
from cortado.tasks import imagenet
from cortado.tasks.pixels import Normalise


def job():
    """Return network and task."""
    picture = imagenet.Picture(size=192, normalise=Normalise(mean=(0.5,) * 3, std=(0.5,) * 3))
    return mobilenet_v1_folded(width=0.75, weights=True).eval(), imagenet.task(picture=picture)
