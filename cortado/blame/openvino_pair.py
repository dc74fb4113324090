"""OpenVINO pair: blame for two .xml files, by taking roundings out of the model in integers and running it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cortado.blame.blame import Blame, judged
from cortado.errors import BadNetwork, BadValue
from cortado.running.trees import tensors_in
from cortado.runtimes.openvino import EXACT, Openvino, openvino_package

PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
DECODES = ("Convert", "Subtract", "Multiply")
"""Operators that turn codes into values."""
PASSES = (*DECODES, "Reshape", "Transpose", "Concat", "MaxPool", "Relu", "Clamp", "Squeeze", "Unsqueeze", "Pad", "Add")
"""Operators between a rounding and the products that read it."""


@dataclass(frozen=True)
class ModelRounding:
    """A FakeQuantize of an activation, the last operator that decodes it, and the products that need it."""

    quantize: Any
    last: Any
    products: frozenset[int]


class ModelPair:
    """A model in integers and its original, with samples."""

    def __init__(self, file: Path, original: Path, samples: Any) -> None:
        self.core, self.file = openvino_package().Core(), file
        self.wanted_model = self.core.read_model(str(original))
        self.samples = [one.numpy() for one in tensors_in(samples)]
        model = self.core.read_model(str(file))
        self.names = [step.get_friendly_name() for step in products_in(model)]
        others = products_in(self.wanted_model)
        if len(others) != len(self.names):
            raise BadNetwork(
                f"blame: {file} has {len(self.names)} products with weights and {original} has {len(others)}: they are not "
                "the same network. Pass the file that it was quantized from."
            )
        self.weights = [constant_value(step.input_value(1)) for step in others]
        for name, step, weight in zip(self.names, products_in(model), self.weights, strict=True):
            if constant_value(step.input_value(1)).shape != weight.shape:
                raise BadNetwork(
                    f"blame: {name} of {file} has other weights than in {original}. Pass the file that it was quantized from."
                )
        self.wanted = self.run(self.wanted_model)

    def run(self, model: Any) -> list[np.ndarray]:
        """Return a model's outputs for all samples."""
        model.reshape({place: list(one.shape) for place, one in enumerate(self.samples)})
        compiled = self.core.compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 1})
        found = compiled(dict(enumerate(self.samples)))
        return [np.array(found[place]) for place in range(len(model.outputs))]

    def error(self, floats: Collection[str]) -> float:
        """Return the root mean square error of the outputs with these layers in floats, each in units of its spread."""
        model = self.core.read_model(str(self.file))
        numbers = {number for number, name in enumerate(self.names) if name in floats}
        steps = products_in(model)
        for rounding in roundings_in(model, steps):
            if rounding.products <= numbers:
                rounding.last.output(0).replace(read_by_rounding(rounding.quantize))
        for number in numbers:
            constant = openvino_package().opset13.constant(self.weights[number])
            steps[number].input(1).replace_source_output(constant.output(0))
        pairs = zip(self.run(model), self.wanted, strict=True)
        return (
            float(np.mean([np.mean((one - other) ** 2) / max(other.std() ** 2, 1e-24) for one, other in pairs])) ** 0.5
        )


def read_by_rounding(quantize: Any) -> Any:
    """Return what a rounding reads, above zero if its grid starts there: such a grid stands for a ReLU too."""
    source = quantize.input_value(0)
    low = constant_value(quantize.input_value(1))
    return openvino_package().opset13.relu(source).output(0) if not low.any() else source


def products_in(model: Any) -> list[Any]:
    """Return the products with constant weights, in order."""
    return [
        step
        for step in model.get_ordered_ops()
        if step.get_type_name() in PRODUCTS and from_constants(step.input_value(1))
    ]


def from_constants(value: Any) -> bool:
    """Return whether a value is computed from constants alone."""
    step = value.get_node()
    return step.get_type_name() == "Constant" or bool(
        step.inputs() and all(from_constants(one) for one in step.input_values())
    )


def constant_value(value: Any) -> np.ndarray:
    """Return a value that is computed from constants."""
    package = openvino_package()
    compiled = package.Core().compile_model(package.Model([value], []), "CPU", EXACT)
    return np.array(compiled({})[0])


def roundings_in(model: Any, products: list[Any]) -> list[ModelRounding]:
    """Return the roundings of activations, with the products that read them and the one whose output they round."""
    numbers = {step.get_friendly_name(): number for number, step in enumerate(products)}
    found = []
    for step in model.get_ordered_ops():
        if step.get_type_name() == "FakeQuantize" and not from_constants(step.input_value(0)):
            last = step
            while (after := sole_reader(last)) is not None and after.get_type_name() in DECODES:
                last = after
            names = {one.get_friendly_name() for one in reading_products(last)}
            maker = step.input_value(0).get_node()
            while (
                maker.get_type_name() in ("Add", "Relu", "Clamp", "PRelu") and maker.get_friendly_name() not in numbers
            ):
                maker = maker.input_value(0).get_node()
            names |= {maker.get_friendly_name()} & set(numbers)
            found.append(ModelRounding(step, last, frozenset(numbers[name] for name in names if name in numbers)))
    return found


def sole_reader(step: Any) -> Any:
    """Return the only operator that reads an operator's output; None if there are several."""
    readers = [one.get_node() for one in step.output(0).get_target_inputs()]
    return readers[0] if len(readers) == 1 else None


def reading_products(step: Any) -> Iterator[Any]:
    """Yield the products that read a value, directly or moved."""
    for one in step.output(0).get_target_inputs():
        after = one.get_node()
        if after.get_type_name() in PRODUCTS:
            yield after
        elif after.get_type_name() in PASSES:
            yield from reading_products(after)


def blame_models(file: Path, original: Path, samples: Any, wanted: float | None) -> Blame:
    """Return the blame for two models: each layer is rounded alone, and sets are measured.

    Each measurement compiles the model, so this takes seconds to minutes. Raises BadValue without samples.
    """
    Openvino().require()
    if samples is None:
        raise BadValue("blame: .xml files need samples. Pass --samples inputs.npy, samples first.")
    pair = ModelPair(file, original, samples)
    return judged(pair.error, pair.names, dict.fromkeys(pair.names), len(pair.samples[0]), wanted)
