"""Whatever arrives from the sandbox becomes plain data or a ``WireError``, and nothing else happens."""

import contextlib
import json
import math
import pickle

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.checks.probes.observe import Raised, Strange
from utils.grading.inside.wire import DTYPES, LENGTH, MAX_BYTES, MAX_DEPTH, MAX_INT_BITS, WireError, pack, unpack

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = settings(max_examples=150, deadline=None)
TEXTS = st.text(st.characters(), max_size=20)
SHAPES = st.lists(st.integers(0, 3), max_size=3)
TENSORS = st.builds(
    lambda dtype, shape, seed: (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 200 - 100).to(dtype),
    st.sampled_from(sorted(DTYPES, key=str)),
    SHAPES,
    st.integers(0, 9),
)
RAISED = st.builds(Raised, st.lists(TEXTS, min_size=1, max_size=3).map(tuple), TEXTS, TEXTS)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**MAX_INT_BITS) + 1, 2**MAX_INT_BITS - 1)
    | st.floats()
    | TEXTS
    | TENSORS
    | RAISED
    | st.builds(Strange, TEXTS)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=8,
)


def same(first, second) -> bool:
    """Whether two values are the same, types and dtypes included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        is_alike = first.dtype == second.dtype and first.shape == second.shape
        return is_alike and torch.equal(first.nan_to_num(), second.nan_to_num())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    return first == second


def is_data(value) -> bool:
    """Whether a value is nothing but plain data."""
    if isinstance(value, list | tuple):
        return all(map(is_data, value))
    if isinstance(value, dict):
        return all(type(key) is str and is_data(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str, torch.Tensor, Raised, Strange)


def message(data, tensors: dict | None = None) -> bytes:
    """A message as somebody else could make it."""
    text = data if isinstance(data, bytes) else json.dumps(data).encode("ascii")
    return LENGTH.pack(len(text)) + text + safetensors.torch.save(tensors or {})


# Round trips ---------------------------------------------------------------------------------------------


@SETTINGS
@given(VALUES)
def test_what_is_packed_comes_back(value):
    assert same(unpack(pack(value)), value)


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_every_dtype_comes_back(dtype):
    tensor = torch.tensor([0, 1, 3]).to(dtype)
    assert same(unpack(pack(tensor)), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(6.0)[::2],
        torch.ones(1).expand(5),
        torch.ones(2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.empty(0, 3),
        torch.tensor(3.0),
    ],
    ids=["transposed", "strided", "expanded", "with gradient", "parameter", "empty", "scalar"],
)
def test_a_tensor_of_any_layout_comes_back_as_numbers(tensor):
    found = unpack(pack(tensor))
    assert type(found) is torch.Tensor and not found.requires_grad and torch.equal(found, tensor.detach())


def test_two_views_of_one_tensor_come_back():
    tensor = torch.arange(4)
    assert all(map(torch.equal, unpack(pack([tensor, tensor[1:]])), [tensor, tensor[1:]]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "object"),
        (1j, "complex"),
        (b"x", "bytes"),
        (2**300, "very large int"),
        (torch.ones(2, dtype=torch.complex64), "tensor of torch.complex64"),
        ({1, 2}, "set"),
    ],
)
def test_what_is_no_data_becomes_a_word(value, said):
    assert unpack(pack([value])) == [Strange(said)]


def test_nesting_without_end_becomes_a_word():
    value: list = []
    value.append(value)
    assert "nested too deeply" in repr(unpack(pack(value)))


# Made up by somebody else -----------------------------------------------------------------------------------


def survives(content: bytes) -> bool:
    """Whether reading gives data or a ``WireError``."""
    with contextlib.suppress(WireError):
        return is_data(unpack(content))
    return True


@SETTINGS
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content):
    assert survives(content)


@SETTINGS
@given(VALUES, st.data())
def test_a_message_with_a_few_bytes_changed_is_data_or_refused(value, data):
    content = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert survives(bytes(content))


@SETTINGS
@given(VALUES, st.data())
def test_a_message_that_is_cut_or_goes_on_is_data_or_refused(value, data):
    content = pack(value)
    assert survives(content[: data.draw(st.integers(0, len(content)))])
    assert survives(content + data.draw(st.binary(max_size=20)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dict", "tuple", "tensor", "raised", "strange", "float", "0"]) | TEXTS, inner, max_size=2
        )
    ),
    max_leaves=10,
)


@SETTINGS
@given(JSON)
def test_any_json_is_data_or_refused(data):
    assert survives(message(data, {"0": torch.ones(2)}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 8,
        LENGTH.pack(2**63) + b"{}",
        pickle.dumps({"result": 1}),
        message(b"["),
        message(b"[" * 100_000),
        message(b'{"dict": ' * 900 + b"1" + b"}" * 900),
        message(b"1" * 5000),
        message(b'"\xff"'),
        message({}),
        message({"a": 1, "b": 2}),
        message({"pickle": "x"}),
        message({"tensor": "0"}),
        message({"tensor": ["0"]}),
        message({"tensor": {}}),
        message({"float": "1e999"}),
        message({"float": 3}),
        message({"raised": [[], "", ""]}),
        message({"raised": [[1], "", ""]}),
        message({"raised": ["ab", "", ""]}),
        message({"raised": [["A"], {}, ""]}),
        message({"strange": 3}),
        message({"dict": []}),
        message({"tuple": {}}),
        b"\0" * (MAX_BYTES + 1),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_forged_message_is_refused(content):
    with pytest.raises(WireError):
        unpack(content)


def test_nan_in_the_json_itself_is_only_a_number():
    assert math.isnan(unpack(message(b"NaN")))


def test_a_tensor_of_a_rare_dtype_is_refused_or_plain():
    assert survives(message({"tensor": "0"}, {"0": torch.ones(2).to(torch.float8_e5m2)}))


def test_a_bool_that_is_neither_true_nor_false_becomes_one():
    header = json.dumps({"0": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}).encode()
    content = LENGTH.pack(15) + b'{"tensor": "0"}' + len(header).to_bytes(8, "little") + header + b"\2\xff\0"
    assert unpack(content).tolist() == [True, True, False]


def test_a_tensor_that_claims_more_than_it_holds_is_refused():
    content = message({"tensor": "0"}, {"0": torch.ones(2)}).replace(b'"shape":[2]', b'"shape":[9]')
    with pytest.raises(WireError):
        unpack(content)


def test_a_long_message_of_an_exception_is_cut():
    assert len(unpack(message({"raised": [["A"], "x" * 9999, "y" * 9999]})).message) == 2000


def test_the_deepest_honest_value_comes_back():
    value: list = [1]
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    assert same(unpack(pack(value)), value)
