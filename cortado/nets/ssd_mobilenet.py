"""SSDLite and SSD on MobileNets without norms, at strides 8, 16 and 32."""

from pathlib import Path

from cortado.boxes.anchors import ANCHORS, Anchors
from cortado.nets.backbone import as_stages
from cortado.nets.mobilenet_folded import mobilenet_v1_folded, mobilenet_v2_folded
from cortado.nets.ssd import Ssd
from cortado.nets.weights import load_arrays, read_arrays, weights_path

V1_FILES = {0.25: "mobilenet_v1_0.25_128_qat_int8.npz", 0.75: "mobilenet_v1_0.75_192_qat_int8.npz"}
"""Pretrained backbones by width, in $CORTADO_DATA/weights."""
V1_ENDS, V2_ENDS = (11, 23, 27), (8, 15, 20)
"""Where the stages of `features` end: at the last map of strides 8, 16 and 32."""


def ssdlite_mobilenet_v1(
    classes: int = 3,
    width: float = 0.25,
    backbone: str | Path | bool | None = None,
    weights: str | Path | None = None,
    anchors: Anchors = ANCHORS,
    lite: bool = True,
) -> Ssd:
    """Return SSDLite on MobileNet V1.  Sandler et al., 2018; Howard et al., 2017.

    `backbone` is the .npz of a pretrained MobileNet V1, or True for that of widths 0.25 and 0.75 in $CORTADO_DATA/weights; None
    for fresh weights. `weights`: the .npz of a whole detector. Without `lite`, heads are dense (SSD). Raises BadValue for a
    missing file, BadNetwork if it does not fit.
    """
    file_name = V1_FILES.get(width, f"mobilenet_v1_{width:g}.npz")
    path = weights_path(True, file_name) if backbone is True else backbone
    features = mobilenet_v1_folded(width=width, weights=path).features
    return loaded(Ssd(as_stages(features, V1_ENDS), classes, anchors, lite), weights)


def ssd_mobilenet_v1(
    classes: int = 3,
    width: float = 0.25,
    backbone: str | Path | bool | None = None,
    weights: str | Path | None = None,
    anchors: Anchors = ANCHORS,
) -> Ssd:
    """Return SSD with dense heads on MobileNet V1; options as in `ssdlite_mobilenet_v1`.  Liu et al., 2016."""
    return ssdlite_mobilenet_v1(classes, width, backbone, weights, anchors, lite=False)


def ssdlite_mobilenet_v2(
    classes: int = 3,
    backbone: str | Path | bool | None = None,
    weights: str | Path | None = None,
    anchors: Anchors = ANCHORS,
    lite: bool = True,
) -> Ssd:
    """Return SSDLite on MobileNet V2; options as in `ssdlite_mobilenet_v1`, `backbone` True for the published one."""
    features = mobilenet_v2_folded(weights=backbone).features
    return loaded(Ssd(as_stages(features, V2_ENDS), classes, anchors, lite), weights)


def loaded(network: Ssd, weights: str | Path | None) -> Ssd:
    """Load the weights of a whole detector, if any, and return it."""
    if weights is not None:
        path = weights_path(weights, "")
        load_arrays(network, read_arrays(path), str(path))
    return network
