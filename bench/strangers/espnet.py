"""ESPNet (p = 2, q = 8), segments of street scenes, published weights (sacmehta/ESPNet); CamVid."""

from cortado.nets.espnet import espnet
from cortado.tasks import camvid


def job():
    """Return network and task."""
    return espnet(weights=True).eval(), camvid.task()
