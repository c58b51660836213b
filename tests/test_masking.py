"""The mask and what hangs on it: means of the past, causal weights, the test for leaks, dropout by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from utils.attention import CausalAttention, MultiHeadAttention, SelfAttention_v2
from utils.masking import apply_dropout, causal_mask, causal_softmax, check_length, is_causal, running_mean
from utils.modes import evaluating


@pytest.fixture(autouse=True)
def same_draws_every_time():
    torch.manual_seed(0)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
any_lead = pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)], ids=str)


# The mask


def test_mask_hides_later_keys_and_nothing_else():
    mask = causal_mask(5)
    assert mask.dtype == torch.bool
    assert [[bool(hidden) for hidden in row] for row in mask] == [
        [key > query for key in range(5)] for query in range(5)
    ]


@pytest.mark.parametrize("length", [0, -3])
def test_mask_for_no_token_is_refused(length):
    with pytest.raises(ValueError, match=f"{length}$"):
        causal_mask(length)


def test_length_check_allows_the_full_context():
    check_length(6, context_length=6)
    with pytest.raises(ValueError, match=r"\b7\b.*\b6\b"):
        check_length(7, context_length=6)


# The mean of the past


def test_running_mean_of_the_lectures_toy():
    x = torch.randn(4, 8, 2, generator=torch.Generator().manual_seed(1337))
    assert_close(x[0, 0], torch.tensor([0.1808, -0.0700]), atol=5e-5, rtol=0)
    looped = torch.stack([torch.stack([row[: t + 1].mean(dim=0) for t in range(8)]) for row in x])
    assert_close(running_mean(x), looped)
    by_softmax = torch.zeros(8, 8).masked_fill(causal_mask(8), float("-inf")).softmax(dim=-1) @ x
    assert_close(running_mean(x), by_softmax)


@both_precisions
@settings(deadline=None, max_examples=30)
@given(batch=st.integers(1, 4), num_tokens=st.integers(1, 40), channels=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_running_mean_is_the_running_sum_over_its_length(dtype, batch, num_tokens, channels, seed):
    x = drawn(batch, num_tokens, channels, seed=seed, dtype=dtype)
    counts = torch.arange(1, num_tokens + 1, dtype=dtype)[:, None]
    assert_close(running_mean(x), x.cumsum(dim=1) / counts)


@any_lead
def test_running_mean_works_with_any_leading_dimensions(lead):
    x = drawn(*lead, 5, 3)
    before = x.clone()
    means = running_mean(x)
    assert means.shape == x.shape
    assert_close(means[..., 0, :], x[..., 0, :])
    assert_close(means[..., -1, :], x.mean(dim=-2))
    assert torch.equal(x, before)


# Causal weights


@any_lead
@pytest.mark.parametrize("num_tokens", [1, 2, 7])
@both_precisions
def test_causal_weights_are_those_of_pytorchs_attention(lead, num_tokens, dtype):
    queries, keys = drawn(*lead, num_tokens, 4, seed=1, dtype=dtype), drawn(*lead, num_tokens, 4, seed=2, dtype=dtype)
    values = torch.eye(num_tokens, dtype=dtype).expand(*lead, num_tokens, num_tokens)  # one-hot: they show the weights
    expected = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=1.0)
    assert_close(causal_softmax(queries @ keys.mT), expected)


@settings(deadline=None, max_examples=40)
@given(num_tokens=st.integers(1, 6), scale=st.sampled_from([0.1, 10.0, 1e4]), seed=st.integers(0, 10_000))
def test_causal_weights_add_to_one_and_are_exactly_zero_above_the_diagonal(num_tokens, scale, seed):
    scores = scale * drawn(2, num_tokens, num_tokens, seed=seed).clamp(-1, 1)
    weights = causal_softmax(scores)
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    assert_close(weights.sum(dim=-1), torch.ones(2, num_tokens))
    assert_close(weights[:, -1], torch.softmax(scores[:, -1], dim=-1))


def test_hidden_scores_have_no_say_however_large():
    scores = torch.full((4, 4), -1e4)
    hidden = causal_mask(4)
    assert torch.equal(causal_softmax(scores.masked_fill(hidden, 1e4)), causal_softmax(scores))
    scores = drawn(4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad((causal_softmax(scores) * drawn(4, 4, seed=1)).sum(), scores)
    assert (gradient[hidden] == 0).all() and (gradient[1:].diagonal(-1) != 0).any()


# The test for leaks


class Leak(nn.Module):
    """The identity, except that one position hears from a later one; random in training."""

    def __init__(self, later: int, earlier: int, size: float, scale: float = 1.0):
        super().__init__()
        self.later, self.earlier, self.size, self.scale = later, earlier, size, scale
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.cat([x.tanh(), torch.ones_like(x[..., :1])], dim=-1)  # the largest output is one
        outputs[:, self.earlier, :-1] += self.size * torch.sin(100 * x[:, self.later])
        return self.scale * self.dropout(outputs)


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    num_tokens=st.integers(2, 6),
    size=st.sampled_from([1e-3, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, -1e4]),
    training=st.booleans(),
)
def test_a_leak_between_any_two_positions_is_found(data, num_tokens, size, scale, training):
    later = data.draw(st.integers(1, num_tokens - 1), label="later")
    earlier = data.draw(st.integers(0, later - 1), label="earlier")
    module = Leak(later, earlier, size, scale).train(training)
    assert is_causal(module, 8, num_tokens) is False
    assert [inner.training for inner in module.modules()] == [training, training]
    assert is_causal(Leak(earlier, later, size, scale), 8, num_tokens) is True


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_rounding_is_no_leak(scale):
    def rounded(x: Tensor) -> Tensor:
        total = x.sum(dim=1, keepdim=True)
        after = total - x.cumsum(dim=1)
        return scale * (total - after)  # a running sum whose last digits depend on what comes later

    assert is_causal(rounded, 4, 6) is True
    assert is_causal(Leak(3, 1, 3e-7, scale), 4, 6) is True


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_attention_classes_are_told_apart(training, qkv_bias):
    causal = CausalAttention(3, 4, 6, dropout=0.5, qkv_bias=qkv_bias).train(training)
    many = MultiHeadAttention(3, 4, 6, dropout=0.5, num_heads=2, qkv_bias=qkv_bias).train(training)
    plain = SelfAttention_v2(3, 4, qkv_bias).train(training)
    assert [is_causal(module, 3, 6) for module in (causal, many, plain)] == [True, True, False]
    assert [module.training for module in (causal, many, plain, causal.dropout)] == [training] * 4


def test_modes_come_back_even_if_they_differ():
    module = Leak(1, 0, 1.0)
    module.dropout.eval()
    assert is_causal(module, 2, 3) is False
    assert [inner.training for inner in module.modules()] == [True, False]


def test_leaks_without_a_gradient_are_found():
    assert is_causal(lambda x: torch.from_numpy(x.numpy()[:, ::-1].copy()), 3, 4) is False
    assert is_causal(lambda x: x.sum(dim=1, keepdim=True).round().expand_as(x), 3, 4) is False
    assert is_causal(lambda x: torch.from_numpy(x.numpy().cumsum(axis=1)), 3, 4) is True


def test_modules_of_other_precision_and_single_positions():
    assert is_causal(CausalAttention(3, 2, 4).double(), 3, 4) is True
    assert is_causal(SelfAttention_v2(3, 2).double(), 3, 4) is False
    assert is_causal(SelfAttention_v2(3, 2), 3, 1) is True
    assert is_causal(lambda x: torch.zeros(1, 4, 2), 3, 4) is True


# Dropout by hand


@settings(deadline=None, max_examples=40)
@given(p=st.floats(0, 0.95), seed=st.integers(0, 10_000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_what_is_kept_is_divided_by_the_share_kept(p, seed, rows, columns):
    weights = drawn(2, rows, columns, seed=seed, dtype=torch.float64)
    keep_mask = drawn(2, rows, columns, seed=seed + 1) > 0
    before = weights.clone(), keep_mask.clone()
    dropped = apply_dropout(weights, keep_mask, p)
    assert dropped.dtype == weights.dtype
    assert torch.equal(dropped[~keep_mask], torch.zeros_like(dropped[~keep_mask]))
    assert_close(dropped[keep_mask] * (1 - p), weights[keep_mask])
    assert_close((weights, keep_mask), before, rtol=0, atol=0)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_with_pytorchs_own_mask_is_pytorchs_dropout(p):
    weights = drawn(6, 6).softmax(dim=-1)
    theirs = F.dropout(weights, p)
    assert_close(apply_dropout(weights, theirs != 0, p), theirs)


def test_the_mean_stays():
    kept = apply_dropout(torch.ones(100_000), torch.rand(100_000) >= 0.3, p=0.3)
    assert abs(float(kept.mean()) - 1) < 0.01


@pytest.mark.parametrize("p", [-0.1, 1, 1.5])
def test_a_share_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match=f"{p}$"):
        apply_dropout(torch.ones(2), torch.ones(2, dtype=torch.bool), p)


# Modes for a while


def test_evaluating_restores_modes_after_an_error():
    module = Leak(1, 0, 1.0)
    module.dropout.eval()
    with pytest.raises(KeyError), evaluating(module):
        assert not module.training
        raise KeyError
    assert [inner.training for inner in module.modules()] == [True, False]
