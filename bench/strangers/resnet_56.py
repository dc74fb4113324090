"""ResNet-56 for CIFAR-10, published weights (akamaster/pytorch_resnet_cifar10)."""

from cortado.nets.resnet import resnet_56
from cortado.tasks import cifar10


def job():
    """Return network and task."""
    return resnet_56(weights=True).eval(), cifar10.task()
