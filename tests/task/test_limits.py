"""Limits: what is kept and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortado.errors import BadValue
from cortado.task.limits import limit_of_kind, read_limit, read_limits


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_size_is_kept_up_to_its_value(limit, measured):
    assert read_limit(f"size <= {limit} B").kept(measured, 0) == (measured <= limit)


@given(st.integers(0, 100), st.integers(-100, 100), st.integers(0, 100))
def test_signed_score_counts_from_the_original(original, points, measured):
    assert read_limit(f"score >= {points:+d} %").kept(measured, original) == (measured >= original + points)
    assert read_limit(f"score >= {abs(points)}").kept(measured, original) == (measured >= abs(points))


def test_limits_are_one_of_a_kind():
    assert [limit.what for limit in read_limits(["score >= -1", "size <= 1 MB"])] == ["score", "size"]
    with pytest.raises(BadValue, match="score is limited twice"):
        read_limits(["score >= -1", "score >= 90"])


@pytest.mark.parametrize(
    "text", ["", "size", "size < 3 KB", "speed <= 3 ms", "score <= 3", "score >= 3 MB", "size <= -1 KB", "size <= KB"]
)
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(BadValue):
        read_limit(text)


@pytest.mark.parametrize(
    ("text", "runtime", "threads"),
    [
        ("latency <= 2 ms in onnxruntime", "onnxruntime", 0),
        ("latency<=2ms@onnxruntime:1thread", "onnxruntime", 1),
        ("latency <= 2 ms @ openvino : 4 threads", "openvino", 4),
        ("latency <= 2 ms", "", 0),
    ],
)
def test_latency_says_where_and_with_how_many_threads(text, runtime, threads):
    limit = read_limit(text)
    assert (limit.value, limit.runtime, limit.threads) == (2.0, runtime, threads)


def test_size_of_a_runtime_file_is_a_limit_of_its_own():
    size, file = read_limits(["size <= 1 MB", "size of onnxruntime <= 3 MB"])
    assert (size.what, file.what, file.runtime, file.value) == ("size", "file", "onnxruntime", 3_000_000)
    assert file.kept(3_000_000, 0) and not file.kept(3_000_001, 0)
    with pytest.raises(BadValue, match="file is limited twice"):
        read_limits(["size of onnxruntime <= 3 MB", "size of openvino <= 3 MB"])
    with pytest.raises(BadValue, match="Only its file has a size"):
        read_limit("latency of onnxruntime <= 3 ms")


def test_score_under_a_shift_is_a_limit_of_its_own():
    plain, jpeg, own = read_limits(["score >= -1 %", "score >= -2 % under jpeg", "score>=80 under my_shifts:fog"])
    assert [one.shift for one in (plain, jpeg, own)] == ["", "jpeg", "my_shifts:fog"]
    assert jpeg.relative and jpeg.value == -2 and not own.relative and own.value == 80
    assert limit_of_kind([jpeg, plain], "score") is plain and limit_of_kind([jpeg, own], "score") is jpeg
    with pytest.raises(BadValue, match="score under jpeg is limited twice"):
        read_limits(["score >= -1 under jpeg", "score >= 90 under jpeg"])
    with pytest.raises(BadValue, match="names a shift, but size does not depend on one"):
        read_limit("size <= 1 MB under jpeg")
