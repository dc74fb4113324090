"""Tiny Darknet for ImageNet, published float weights; 500 ImageNet pictures."""

from cortado.nets.tiny_darknet import tiny_darknet
from cortado.tasks import imagenet
from cortado.tasks.pixels import Normalise


def job():
    """Return network and task."""
    picture = imagenet.Picture(normalise=Normalise(mean=(0.0,) * 3, std=(1.0,) * 3))
    return tiny_darknet(weights=True).eval(), imagenet.task(picture=picture)
