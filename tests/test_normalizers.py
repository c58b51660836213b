"""Normalizers: known numbers, weights that add to one, and where the simple rules break."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from utils.normalizers import AddOneNormalizer, BaseNormalizer, SoftmaxNormalizer, stable_softmax

INF = float("inf")
NORMALIZERS = [AddOneNormalizer(), SoftmaxNormalizer()]
either = pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda normalizer: type(normalizer).__name__)

# What normalizers promise


def test_sum_rule_on_the_known_vector():
    weights = AddOneNormalizer().normalize(torch.tensor([1.0, 8.0, 1.0]))
    assert str(weights) == "tensor([0.1000, 0.8000, 0.1000])"


def test_softmax_on_the_known_vector():
    weights = SoftmaxNormalizer().normalize(torch.tensor([1.0, 8.0, 1.0]))
    assert str(weights) == "tensor([9.1022e-04, 9.9818e-01, 9.1022e-04])"


def test_base_class_cannot_be_used_by_itself():
    with pytest.raises(TypeError, match="abstract"):
        BaseNormalizer()


def test_subclass_without_a_rule_cannot_be_used_either():
    class Unfinished(BaseNormalizer):
        pass

    with pytest.raises(TypeError, match="normalize"):
        Unfinished()


def test_subclass_needs_a_rule_and_nothing_else():
    class Equal(BaseNormalizer):
        def normalize(self, inputs: Tensor) -> Tensor:
            return torch.full_like(inputs, 1 / inputs.shape[-1])

    assert Equal().normalize(torch.tensor([3.0, 5.0])).tolist() == [0.5, 0.5]
    assert Equal().mask_value == -INF


@either
def test_every_normalizer_is_a_base_normalizer(normalizer):
    assert isinstance(normalizer, BaseNormalizer)


@either
@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 3), (4, 2, 3), (2, 1, 3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_dimension_adds_to_one(normalizer, shape, dtype):
    inputs = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.1
    before = inputs.clone()
    weights = normalizer.normalize(inputs)
    assert (weights.shape, weights.dtype) == (inputs.shape, dtype)
    assert_close(weights.sum(dim=-1), torch.ones(shape[:-1], dtype=dtype))
    assert torch.equal(inputs, before), "the scores were modified"


@either
def test_gradients_pass_through(normalizer):
    inputs = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    assert torch.autograd.gradcheck(normalizer.normalize, inputs.requires_grad_())


@either
def test_masked_scores_weigh_exactly_nothing_and_change_no_other_weight(normalizer):
    scores = torch.tensor([0.3, 2.0, 0.7, 5.0])
    hidden = torch.tensor([False, True, False, True])
    weights = normalizer.normalize(scores.masked_fill(hidden, normalizer.mask_value))
    assert weights[hidden].tolist() == [0.0, 0.0]
    assert_close(weights[~hidden], normalizer.normalize(scores[~hidden]))


# Where dividing by the sum fails and softmax does not


def test_sum_rule_turns_a_negative_score_into_a_negative_weight():
    scores = torch.tensor([-1.0, 3.0])
    assert AddOneNormalizer().normalize(scores).tolist() == [-0.5, 1.5]
    assert (SoftmaxNormalizer().normalize(scores) > 0).all()


def test_sum_rule_breaks_when_the_sum_is_zero():
    assert AddOneNormalizer().normalize(torch.tensor([1.0, -1.0])).tolist() == [INF, -INF]
    assert AddOneNormalizer().normalize(torch.zeros(2)).isnan().all()
    assert SoftmaxNormalizer().normalize(torch.zeros(2)).tolist() == [0.5, 0.5]


def test_a_common_shift_changes_the_sum_rule_and_not_softmax():
    scores = torch.tensor([1.0, 8.0, 1.0])
    assert_close(SoftmaxNormalizer().normalize(scores + 3), SoftmaxNormalizer().normalize(scores))
    assert AddOneNormalizer().normalize(scores + 3)[1] < 0.6 < AddOneNormalizer().normalize(scores)[1]


# Softmax written out


@st.composite
def scores_and_dim(draw: st.DrawFn) -> tuple[Tensor, int]:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    size = draw(st.sampled_from([1.0, 30.0, 1e4]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scores = (2 * torch.rand(shape, dtype=dtype, generator=generator) - 1) * size
    if draw(st.booleans()):
        hidden = torch.rand(shape, generator=generator) < 0.5
        hidden.select(dim, 0).fill_(False)  # no row is hidden as a whole
        scores = scores.masked_fill(hidden, -INF)
    if draw(st.booleans()):
        scores = scores.transpose(0, -1).contiguous().transpose(0, -1)  # same values, other layout
    return scores, dim


@settings(deadline=None)
@given(case=scores_and_dim())
def test_stable_softmax_agrees_with_pytorch(case):
    scores, dim = case
    before = scores.clone()
    weights = stable_softmax(scores, dim)
    assert_close(weights, torch.softmax(scores, dim))
    assert (weights[scores == -INF] == 0).all()
    assert torch.equal(scores, before), "the scores were modified"


def test_stable_softmax_works_on_the_last_dimension_unless_told_otherwise():
    scores = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert_close(stable_softmax(scores), torch.softmax(scores, dim=1))


def test_naive_softmax_overflows_where_the_stable_one_does_not():
    scores = torch.tensor([1000.0, 1000.0 + math.log(3)])
    exponentials = scores.exp()
    assert (exponentials / exponentials.sum()).isnan().all()
    assert_close(stable_softmax(scores), torch.tensor([0.25, 0.75]), atol=1e-4, rtol=0)


def test_naive_softmax_underflows_where_the_stable_one_does_not():
    scores = torch.tensor([-1000.0, -1000.0])
    assert (scores.exp() / scores.exp().sum()).isnan().all()
    assert stable_softmax(scores).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_stable_softmax_has_the_right_gradient(dim):
    scores = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda inputs: stable_softmax(inputs, dim), scores)


def test_stable_softmax_has_a_finite_gradient_beside_masked_and_tied_scores():
    values = [[2.0, 2.0, -INF], [-INF, -1e4, 1e4]]
    ours, theirs = torch.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    upstream = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.0, -1.0]])
    stable_softmax(ours).backward(upstream)
    torch.softmax(theirs, dim=-1).backward(upstream)
    assert_close(ours.grad, theirs.grad)
