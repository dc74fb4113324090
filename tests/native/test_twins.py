"""The compiled kernels and their copies give the same bytes, and take one another's."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortado.file import mix, rans
from cortado.native import coders
from cortado.native import python_mix as python_mix
from cortado.native import python_rans as python_rans
from cortado.native.build import find_compiler
from cortado.parts.forms.states import LAWS, Course

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def plane_and_mask(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray | None]:
    """A small plane of one to four axes over several scales of values, and perhaps a mask."""
    axes = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, (40, 12, 6, 4)[axes - 1]), min_size=axes, max_size=axes)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.3, 1.0, 5.0, 80.0, 3000.0, 1e9]))
    values = np.clip(np.rint(generator.laplace(scale=scale, size=shape)), -(2**31), 2**31 - 1).astype(np.int64)
    values = np.abs(values + (values == -(2**31))) if draw(st.booleans()) else values
    mask = generator.random(shape) < 0.6 if draw(st.booleans()) else None
    return values.astype(np.int32), mask


COURSES = st.none() | st.builds(Course, st.sampled_from(list(LAWS)), st.sampled_from([1, 5, 36, 1000]))


@given(plane_and_mask(), st.integers(0, 7), st.integers(1, 8), st.integers(0, 9), COURSES)
@QUICK
def test_mix_copy_agrees(
    case: tuple[np.ndarray, np.ndarray | None], preset: int, density: int, stride: int, course: Course | None
) -> None:
    values, mask = case
    where = None if mask is None else mask.astype(np.uint8)
    size = max(int(np.abs(values.astype(np.int64)).max()).bit_length(), 1)
    plan = mix.make_plan(values.shape, (size, int(values.min() < 0), 1), stride, preset, density, course)
    body = coders.mix_encode(values, where, plan)
    assert python_mix.encode(values, where, plan) == body
    kernel, python_port = np.zeros_like(values), np.zeros_like(values)
    assert coders.mix_decode(body, where, plan, kernel) == python_mix.decode(body, where, plan, python_port)
    assert (kernel == python_port).all()
    assert (kernel == (values if mask is None else np.where(mask, values, 0))).all()


@given(st.binary(max_size=40), st.integers(0, 7), st.integers(1, 32), st.booleans(), st.booleans(), COURSES)
@QUICK
def test_mix_copy_reads_noise_alike(
    body: bytes, preset: int, classes: int, signed: bool, zero: bool, course: Course | None
) -> None:
    plan = mix.make_plan((3, 4, 2, 2), (classes, int(signed), int(zero)), 0, preset, 2, course)
    kernel, python_port = np.zeros((3, 4, 2, 2), dtype=np.int32), np.zeros((3, 4, 2, 2), dtype=np.int32)
    assert coders.mix_decode(body, None, plan, kernel) == python_mix.decode(body, None, plan, python_port)
    assert (kernel == python_port).all()


def with_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the fast coder run on its copy."""
    for name, function in {
        "rans_survey": python_rans.survey,
        "rans_tokens": python_rans.tokens,
        "rans_encode": python_rans.encode,
        "rans_decode": python_rans.decode,
    }.items():
        monkeypatch.setattr(rans, name, function)


@given(plane_and_mask())
@QUICK
def test_rans_copy_agrees(case: tuple[np.ndarray, np.ndarray | None]) -> None:
    values, line = case[0].ravel(), case[0].shape[-1]
    body = rans.encode(values, line)
    with pytest.MonkeyPatch.context() as patch:
        with_twin(patch)
        assert rans.encode(values, line) == body
        assert (rans.decode(body, values.size, line) == values).all()
    assert (rans.decode(body, values.size, line) == values).all()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_rans_copy_agrees_when_four_streams_of_unequal_length_run(scale: float) -> None:
    values = np.rint(np.random.default_rng(1).laplace(scale=scale, size=rans.STREAMED_FROM + 7)).astype(np.int32)
    body = rans.encode(values, 100)
    with pytest.MonkeyPatch.context() as patch:
        with_twin(patch)
        assert rans.encode(values, 100) == body
        assert (rans.decode(body, values.size, 100) == values).all()
    assert (rans.decode(body, values.size, 100) == values).all()


@given(st.binary(max_size=30), st.binary(max_size=20), st.booleans(), st.booleans())
@QUICK
def test_rans_copy_reads_noise_alike(words: bytes, raw: bytes, direct: bool, signed: bool) -> None:
    plan = rans.CodingTables(23, 5, direct, -3 if direct else 0, signed and not direct).numbers()
    tables = rans.kernel_tables(np.full((1, 16), 2048, dtype=np.int64))
    lookup = rans.lookup_table([], 1)
    kernel, python_port = np.zeros(23, dtype=np.int32), np.zeros(23, dtype=np.int32)
    ended = coders.rans_decode(words, raw, plan, lookup, lookup, tables, kernel)
    assert ended == python_rans.decode(words, raw, plan, lookup, lookup, tables, python_port)
    assert (kernel == python_port).all()
