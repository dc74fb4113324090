"""Every operator that is read computes what ONNX Runtime computes."""

import numpy as np
import pytest
import torch

from cortado.nets.from_onnx.network import load_onnx
from cortado.nets.from_onnx.rules.table import RULES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

PICTURE, ROWS, TEXT = (1, 4, 6, 8), (1, 6), (1, 5, 6)
NUMBERS = np.random.default_rng(0)


def floats(*shape):
    return NUMBERS.standard_normal(shape).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


def of(kind, shape, *constants, opset=17, outputs=1, **attributes):
    """One operator on an input of a shape and on constants; None leaves an input out."""
    return kind, shape, constants, opset, outputs, attributes


UNARY = (
    "Relu Sigmoid Tanh Elu Selu Celu LeakyRelu HardSigmoid HardSwish Softplus Softsign Neg Abs Exp Floor Ceil Round Sign Sin Cos "
    "Erf Identity"
)
CASES = [
    *(of(kind, PICTURE) for kind in UNARY.split()),
    of("Sqrt", PICTURE, opset=13), of("Log", PICTURE), of("Reciprocal", PICTURE), of("Mish", PICTURE, opset=18),
    of("Gelu", PICTURE, opset=20), of("Gelu", PICTURE, opset=20, approximate="tanh"),
    of("HardSigmoid", PICTURE, alpha=1 / 6, beta=0.5),
    of("Add", PICTURE, np.float32(2)), of("Add", PICTURE, floats(4, 1, 1)), of("Sub", PICTURE, floats(1)), of("Mul", PICTURE, floats(8)),
    of("Div", PICTURE, np.float32(3)), of("Pow", PICTURE, np.float32(2)), of("Mod", PICTURE, np.float32(2), fmod=1),
    of("Max", PICTURE, floats(8), floats(1)), of("Min", PICTURE, floats(8)), of("Sum", PICTURE, floats(8), floats(4, 1, 1)),
    of("Mean", PICTURE, floats(8)), of("PRelu", PICTURE, floats(4, 1, 1)), of("PRelu", PICTURE, floats(1)), of("PRelu", PICTURE, floats(4, 6, 8)),
    of("Clip", PICTURE, np.float32(-0.5), np.float32(0.7)), of("Clip", PICTURE, np.float32(0)), of("Clip", PICTURE, np.float32(0), np.float32(6)),
    of("Clip", PICTURE, opset=9, min=-0.2, max=0.3), of("Clip", PICTURE, None, np.float32(0.1)),
    of("Softmax", PICTURE, axis=1), of("Softmax", PICTURE, opset=11, axis=1), of("LogSoftmax", PICTURE, axis=-1),
    of("Cast", PICTURE, to=7), of("Cast", PICTURE, to=1), of("CastLike", PICTURE, whole(1)),
    of("Conv", PICTURE, floats(6, 2, 3, 3), floats(6), group=2, pads=[1, 1, 1, 1], strides=[2, 1]),
    of("Conv", PICTURE, floats(3, 4, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2]),
    of("Conv", PICTURE, floats(3, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    of("Conv", PICTURE, floats(3, 4, 3, 3), auto_pad="SAME_LOWER"), of("Conv", PICTURE, floats(3, 4, 2, 2), auto_pad="VALID", dilations=[2, 2]),
    of("Conv", (1, 4, 9), floats(3, 4, 3), pads=[0, 2]), of("Conv", (1, 2, 4, 5, 6), floats(3, 2, 2, 2, 2)),
    of("ConvTranspose", PICTURE, floats(4, 3, 2, 2), floats(3), strides=[2, 2]),
    of("ConvTranspose", PICTURE, floats(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 0, 0]),
    of("Gemm", ROWS, floats(3, 6), floats(3), transB=1), of("Gemm", ROWS, floats(6, 3), floats(3)),
    of("Gemm", ROWS, floats(6, 3), floats(1, 3), alpha=0.5, beta=2.0), of("MatMul", TEXT, floats(6, 4)), of("MatMul", TEXT, floats(1, 6, 4)),
    of("Einsum", TEXT, floats(6, 3), equation="nti,io->nto"),
    of("BatchNormalization", PICTURE, floats(4), floats(4), floats(4), abs(floats(4)) + 1), of("LayerNormalization", TEXT, floats(6), floats(6)),
    of("InstanceNormalization", PICTURE, floats(4), floats(4)), of("GroupNormalization", PICTURE, floats(4), floats(4), opset=21, num_groups=2),
    of("LRN", PICTURE, size=3), of("LpNormalization", PICTURE, axis=1),
    of("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    of("MaxPool", PICTURE, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]),
    of("MaxPool", PICTURE, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    of("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    of("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[0, 0, 1, 1], count_include_pad=1),
    of("GlobalAveragePool", PICTURE), of("GlobalMaxPool", PICTURE),
    of("Reshape", PICTURE, whole(0, -1)), of("Reshape", PICTURE, whole(-1, 24)), of("Reshape", PICTURE, whole(1, 24, -1)),
    of("Reshape", PICTURE, whole(0, 2, 2, 48)), of("Flatten", PICTURE), of("Flatten", PICTURE, axis=2),
    of("Transpose", PICTURE, perm=[0, 2, 3, 1]), of("Squeeze", (1, 4, 1, 8), whole(2)), of("Squeeze", (1, 4, 1, 8), opset=11, axes=[2]),
    of("Unsqueeze", PICTURE, whole(1, -1)), of("Unsqueeze", PICTURE, opset=11, axes=[2]), of("Expand", (1, 1, 8), whole(1, 5, 8)),
    of("Tile", PICTURE, whole(1, 2, 1, 1)), of("Concat", PICTURE, floats(1, 4, 6, 8), axis=2),
    of("Split", PICTURE, whole(1, 3), axis=1, outputs=2), of("Split", PICTURE, opset=18, axis=3, num_outputs=3, outputs=3),
    of("Split", PICTURE, opset=11, axis=1, split=[2, 2], outputs=2),
    of("Pad", PICTURE, whole(0, 0, 1, 2, 0, 0, 0, 1)), of("Pad", PICTURE, whole(0, 0, 1, 2, 0, 0, 0, 1), np.float32(2)),
    of("Pad", PICTURE, whole(0, 0, 1, 2, 0, 0, 0, 1), mode="reflect"), of("Pad", PICTURE, whole(0, 0, 1, 2, 0, 0, 0, 1), mode="edge"),
    of("Pad", PICTURE, whole(1, 2), None, whole(3), opset=18), of("DepthToSpace", PICTURE, blocksize=2),
    of("DepthToSpace", PICTURE, blocksize=2, mode="CRD"), of("SpaceToDepth", PICTURE, blocksize=2),
    of("Slice", PICTURE, whole(1), whole(3), whole(1)), of("Slice", PICTURE, whole(-3, 0), whole(2**63 - 1, -1), whole(3, 2), whole(2, 1)),
    of("Slice", PICTURE, whole(-1), whole(-(2**63)), whole(3), whole(-1)), of("Slice", PICTURE, opset=9, starts=[1], ends=[3], axes=[1]),
    of("Gather", PICTURE, np.int64(2), axis=1), of("Gather", PICTURE, np.array([[0, 2], [1, -1]]), axis=2),
    of("GatherElements", ROWS, np.array([[0, -1, 3]]), axis=1), of("TopK", ROWS, whole(3), outputs=2), of("CumSum", ROWS, np.int64(1)),
    of("ArgMax", PICTURE, axis=1), of("ArgMin", PICTURE, axis=1, keepdims=0),
    *(of(f"Reduce{kind}", PICTURE, opset=13, axes=[1, 3]) for kind in ["Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]),
    of("ReduceMean", PICTURE, whole(2, 3), opset=18, keepdims=0), of("ReduceSum", PICTURE, whole(1)), of("ReduceLogSum", (1, 4), opset=13, axes=[1]),
    of("Resize", PICTURE, None, np.float32([1, 1, 2, 2]), mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
    of("Resize", PICTURE, None, None, whole(1, 4, 12, 16), mode="nearest"), of("Resize", PICTURE, None, None, whole(1, 4, 9, 5), mode="linear"),
    of("Resize", PICTURE, None, None, whole(1, 4, 9, 5), mode="linear", coordinate_transformation_mode="align_corners"),
    of("Resize", PICTURE, np.float32([1, 1, 2, 2]), opset=10), of("Upsample", PICTURE, np.float32([1, 1, 2, 2]), opset=9),
    of("IsNaN", PICTURE), of("IsInf", PICTURE), of("Greater", PICTURE, np.float32(0)), of("Less", PICTURE, floats(8)),
    of("GreaterOrEqual", PICTURE, np.float32(0)), of("LessOrEqual", PICTURE, np.float32(0)), of("Equal", PICTURE, np.float32(0)),
    of("Dropout", PICTURE),
]  # fmt: skip
ELSEWHERE = {"Silu", "LinearWithBias", "Rounding"}
"""What takes the place of several operators."""
IN_FILES = {"And", "Or", "Xor", "Not", "Where", "ConstantOfShape", "Range", "QuantizeLinear", "DequantizeLinear"}
"""Operators that take several values at run time, or none: tested in whole files."""


def written(folder, kind, shape, constants, opset, outputs, attributes):
    """Write a file of one operator, with a fixed batch of one."""
    helper, arrays = onnx.helper, onnx.numpy_helper
    names = ["" if one is None else f"constant.{place}" for place, one in enumerate(constants)]
    made = [f"made.{place}" for place in range(outputs)]
    node = helper.make_node(kind, ["given", *names], made, f"/part/{kind}", **attributes)
    kept = [arrays.from_array(np.asarray(one), name) for one, name in zip(constants, names, strict=True) if name]
    given = helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, shape)
    results = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph([node], "one", [given], results, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "one.onnx")
    return folder / "one.onnx"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[3]}")
def test_an_operator_is_computed_as_onnx_runtime_does(case, tmp_path):
    file = written(tmp_path, *case)
    values = floats(*case[1])
    values = abs(values) + 0.1 if case[0] in ("Sqrt", "Log", "Reciprocal", "ReduceLogSum") else values
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    wanted = onnxruntime.InferenceSession(str(file), options).run(None, {"given": values})
    network = load_onnx(file)
    with torch.no_grad():
        found = network(torch.from_numpy(values))
        twice = network(torch.from_numpy(np.concatenate([values, values])))
    found, twice = (one if isinstance(one, (tuple, list)) else (one,) for one in (found, twice))
    for one, other, both in zip(wanted, found, twice, strict=True):
        np.testing.assert_allclose(other.numpy(), one, rtol=1e-4, atol=2e-5)
        assert other.numpy().dtype == one.dtype
        if len(one) == 1 or case[0] == "Flatten":
            np.testing.assert_allclose(both.numpy(), np.concatenate([one, one]), rtol=1e-4, atol=2e-5)


def test_every_rule_is_tried():
    assert {case[0] for case in CASES} | ELSEWHERE | IN_FILES == set(RULES)
