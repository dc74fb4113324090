"""ONNX Runtime's own quantizer and NNCF on the .onnx file of an original network, calibrated on the same images as Cortado.

Both in the ways their manuals name for convolutions on processors: activations unsigned, weights signed with a scale a channel.
`reduce_range` (ONNX Runtime) gives weights 7 bits for processors without VNNI; NNCF does so by itself.
"""

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.rivals.optional import found

ONNX_WAYS: dict[str, dict[str, Any]] = {
    f"{method}, {'7' if reduce else '8'} bits": {"calibrate_method": method, "reduce_range": reduce}
    for method in ("MinMax", "Percentile", "Entropy")
    for reduce in (True, False)
}
NNCF_WAYS = ("MIXED", "PERFORMANCE")


class Reader:
    """Calibration images, one batch after another, as ONNX Runtime asks for them."""

    def __init__(self, name: str, batches: list[Tensor]) -> None:
        self.name, self.left = name, list(batches)

    def get_next(self) -> dict[str, Any] | None:
        return {self.name: self.left.pop(0).numpy()} if self.left else None


def onnx_runtime(original: Path, target: Path, batches: list[Tensor], way: str) -> Path:
    """quantize_static after its own preparation of the file."""
    quantization = found("onnxruntime.quantization")
    prepare = found("onnxruntime.quantization.shape_inference").quant_pre_process
    name = found("onnxruntime").InferenceSession(str(original)).get_inputs()[0].name
    settings = dict(ONNX_WAYS[way])
    method = getattr(quantization.CalibrationMethod, settings.pop("calibrate_method"))
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        prepare(str(original), str(ready))
        quantization.quantize_static(
            str(ready), str(target), Reader(name, batches), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            calibrate_method=method, **settings,
        )  # fmt: skip
    return target


def nncf(original: Path, target: Path, batches: list[Tensor], way: str) -> Path:
    """NNCF on OpenVINO; `target` ends in .xml."""
    tool, openvino = found("nncf"), found("openvino")
    data = tool.Dataset([batch.numpy() for batch in batches])
    images = sum(len(batch) for batch in batches)
    made = tool.quantize(
        openvino.Core().read_model(str(original)),
        data,
        preset=getattr(tool.QuantizationPreset, way),
        subset_size=images,
    )
    openvino.save_model(made, str(target), compress_to_fp16=False)
    return target
