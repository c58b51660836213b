"""The attention family: known numbers, agreement with PyTorch's own attention, masks, dropout, heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from utils import attention
from utils.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    SimpleSelfAttention,
    attend,
    attention_weights,
    causal_mask,
    check_length,
    context_vector,
    dot_product_score,
    merge_heads,
    split_heads,
)
from utils.normalizers import AddOneNormalizer, BaseNormalizer, SoftmaxNormalizer

# "Your journey starts with one step", one row per word: (6, 3)
INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
TWO_COPIES = torch.stack([INPUTS, INPUTS])  # (2, 6, 3)
SOFTMAX = SoftmaxNormalizer()


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(seed)
    return build()


def assert_shows(actual: Tensor, numbers: str) -> None:
    """`actual` prints as these numbers, four decimals each."""
    expected = torch.tensor([float(number) for number in numbers.split()])
    assert_close(actual.detach().flatten(), expected, atol=5.1e-5, rtol=0)


# Every trainable class behind one signature. `num_heads` counts only where there are heads, and `d_out` is
# always the number of output features.


def build_v1(d_in: int, d_out: int, normalizer: BaseNormalizer | None = None, **unused: object) -> nn.Module:
    return SelfAttention_v1(d_in, d_out, normalizer=normalizer)


def build_v2(d_in: int, d_out: int, normalizer: BaseNormalizer | None = None, **unused: object) -> nn.Module:
    return SelfAttention_v2(d_in, d_out, normalizer=normalizer)


def build_causal(
    d_in: int,
    d_out: int,
    normalizer: BaseNormalizer | None = None,
    length: int = 8,
    dropout: float = 0.0,
    num_heads: int = 1,
) -> nn.Module:
    return CausalAttention(d_in, d_out, length, dropout, normalizer=normalizer)


def build_wrapper(
    d_in: int,
    d_out: int,
    normalizer: BaseNormalizer | None = None,
    length: int = 8,
    dropout: float = 0.0,
    num_heads: int = 1,
) -> nn.Module:
    head_dim = d_out // num_heads
    return MultiHeadAttentionWrapper(d_in, head_dim, length, dropout, num_heads, normalizer=normalizer)


def build_multi_head(
    d_in: int,
    d_out: int,
    normalizer: BaseNormalizer | None = None,
    length: int = 8,
    dropout: float = 0.0,
    num_heads: int = 1,
) -> nn.Module:
    return MultiHeadAttention(d_in, d_out, length, dropout, num_heads, normalizer=normalizer)


CAUSAL = {"causal": build_causal, "wrapper": build_wrapper, "multi_head": build_multi_head}
TRAINABLE = {"v1": build_v1, "v2": build_v2} | CAUSAL
every_trainable = pytest.mark.parametrize("build", TRAINABLE.values(), ids=TRAINABLE.keys())
every_causal = pytest.mark.parametrize("build", CAUSAL.values(), ids=CAUSAL.keys())


def revealed_weights(module: nn.Module, num_tokens: int, num_heads: int = 1) -> Tensor:
    """The weights inside a module with d_in = num_tokens and num_tokens features per head: (H, T, T).

    The inputs are one-hot vectors and every head's values are the inputs, so that the output is the weights.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "W_value" in name:
                parameter.copy_(torch.eye(num_tokens).repeat(len(parameter) // num_tokens, 1))
            elif name == "out_proj.weight":
                parameter.copy_(torch.eye(len(parameter)))
            elif name == "out_proj.bias":
                parameter.zero_()
        return split_heads(module(torch.eye(num_tokens)), num_heads)


# Known numbers, without trainable weights


def test_scores_of_the_second_query():
    scores = torch.stack([dot_product_score(INPUTS[1], key) for key in INPUTS])
    assert_shows(scores, "0.9544 1.4950 1.4754 0.8434 0.7070 1.0865")


def test_sum_normalised_scores_of_the_second_query():
    weights = AddOneNormalizer().normalize(INPUTS @ INPUTS[1])
    assert_shows(weights, "0.1455 0.2278 0.2249 0.1285 0.1077 0.1656")


def test_softmax_weights_of_the_second_query():
    assert_shows(attention_weights(INPUTS)[1], "0.1385 0.2379 0.2333 0.1240 0.1082 0.1581")


def test_context_vector_of_the_second_query():
    assert_shows(context_vector(INPUTS[1], INPUTS), "0.4419 0.6515 0.5683")


def test_all_scores_by_two_loops_are_one_matrix_product():
    by_loops = torch.stack([torch.stack([dot_product_score(query, key) for key in INPUTS]) for query in INPUTS])
    assert_close(SimpleSelfAttention().get_scores(INPUTS), by_loops)


def test_context_vectors_of_all_queries():
    contexts = SimpleSelfAttention()(INPUTS)
    assert_shows(contexts[0], "0.4421 0.5931 0.5790")
    assert_close(contexts, torch.stack([context_vector(query, INPUTS) for query in INPUTS]))


# Known numbers, with trainable weights


def test_one_query_step_by_step():
    v1 = seeded(123, lambda: SelfAttention_v1(3, 2))
    queries, keys, values = INPUTS @ v1.W_query, INPUTS @ v1.W_key, INPUTS @ v1.W_value
    assert_shows(queries[1], "0.4306 1.4551")
    assert_shows(dot_product_score(queries[1], keys[1]), "1.8524")
    assert_shows(queries[1] @ keys.T, "1.2705 1.8524 1.8111 1.0795 0.5577 1.5440")
    weights = attend(queries, keys, torch.eye(6), SOFTMAX)  # one-hot values show the weights
    assert_shows(weights[1], "0.1500 0.2264 0.2199 0.1311 0.0906 0.1820")
    assert_shows(attend(queries, keys, values, SOFTMAX)[1], "0.3061 0.8210")


def test_v1_with_seed_123():
    assert_shows(
        seeded(123, lambda: SelfAttention_v1(3, 2))(INPUTS),
        "0.2996 0.8053 0.3061 0.8210 0.3058 0.8203 0.2948 0.7939 0.2927 0.7891 0.2990 0.8040",
    )


def test_v2_with_seed_789():
    v2 = seeded(789, lambda: SelfAttention_v2(3, 2))
    assert_shows(
        v2(INPUTS),
        "-0.0739 0.0713 -0.0748 0.0703 -0.0749 0.0702 -0.0760 0.0685 -0.0763 0.0679 -0.0754 0.0693",
    )
    weights = attend(v2.W_query(INPUTS), v2.W_key(INPUTS), torch.eye(6), SOFTMAX)
    assert_shows(weights[0], "0.1921 0.1646 0.1652 0.1550 0.1721 0.1510")


def test_zeroing_and_renormalising_gives_what_the_mask_gives():
    v2 = seeded(789, lambda: SelfAttention_v2(3, 2))
    queries, keys = v2.W_query(INPUTS), v2.W_key(INPUTS)
    masked = attend(queries, keys, torch.eye(6), SOFTMAX, hidden=causal_mask(6))
    assert_shows(masked[1], "0.5517 0.4483 0 0 0 0")
    zeroed = attend(queries, keys, torch.eye(6), SOFTMAX).tril()
    assert_close(masked, zeroed / zeroed.sum(dim=-1, keepdim=True))


def test_wrapper_with_two_heads_and_seed_123():
    contexts = seeded(123, lambda: MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2))(TWO_COPIES)
    assert contexts.shape == (2, 6, 4)
    assert_shows(contexts[:, 0], "-0.4519 0.2216 0.4772 0.1063 " * 2)


def test_wrapper_with_two_dimensional_output():
    contexts = seeded(123, lambda: MultiHeadAttentionWrapper(3, 1, 6, 0.0, num_heads=2))(TWO_COPIES)
    assert contexts.shape == (2, 6, 2)
    assert_shows(contexts[0, 0], "-0.5740 0.2216")


def test_multi_head_attention_with_seed_123():
    contexts = seeded(123, lambda: MultiHeadAttention(3, 2, 6, 0.0, num_heads=2))(TWO_COPIES)
    assert contexts.shape == (2, 6, 2)
    assert_shows(contexts[0, 0], "0.3190 0.4858")


def test_normalising_over_the_queries_is_the_known_mistake_and_not_what_we_do():
    class OverQueries(BaseNormalizer):
        def normalize(self, inputs: Tensor) -> Tensor:
            return torch.softmax(inputs, dim=-2)

    mistaken = seeded(123, lambda: MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2, normalizer=OverQueries()))(TWO_COPIES)
    right = seeded(123, lambda: MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2))(TWO_COPIES)
    assert_shows(mistaken[0, 0], "-0.0844 0.0414 0.0766 0.0171")
    assert (right[0, 0] - mistaken[0, 0]).abs().min() > 0.05


def test_gpt2_sized_attention():
    gpt2 = MultiHeadAttention(768, 768, 1024, 0.1, num_heads=12)
    assert gpt2.head_dim == 64
    assert sum(parameter.numel() for parameter in gpt2.parameters()) == 4 * 768**2 + 768
    assert gpt2(torch.zeros(1, 3, 768)).shape == (1, 3, 768)


# Agreement with PyTorch

SHAPES = [(5, 4), (1, 4), (3, 5, 4), (1, 1, 4), (2, 3, 5, 4), (2, 1, 3, 5, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_dot_product_score_is_the_dot_product(size):
    query, key = drawn(size, seed=1), drawn(size, seed=2)
    score = dot_product_score(query, key)
    assert score.shape == ()
    assert_close(score, torch.dot(query, key))


@every_shape
def test_simple_attention_is_unscaled_dot_product_attention(shape):
    x = drawn(*shape)
    simple = SimpleSelfAttention()
    assert_close(simple(x), F.scaled_dot_product_attention(x, x, x, scale=1.0))
    assert_close(attention_weights(x), torch.softmax(x @ x.mT, dim=-1))
    assert_close(simple.get_weights(simple.get_scores(x)), attention_weights(x))
    assert_close(simple.get_context_vectors(x, attention_weights(x)), simple(x))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attend_is_scaled_dot_product_attention(lead, causal):
    queries, keys, values = drawn(*lead, 5, 4, seed=1), drawn(*lead, 7, 4, seed=2), drawn(*lead, 7, 3, seed=3)
    hidden = causal_mask(7)[:5] if causal else None
    expected = F.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
    assert_close(attend(queries, keys, values, SOFTMAX, hidden), expected)


@every_shape
def test_v1_is_scaled_dot_product_attention(shape):
    x, v1 = drawn(*shape), SelfAttention_v1(4, 3)
    expected = F.scaled_dot_product_attention(x @ v1.W_query, x @ v1.W_key, x @ v1.W_value)
    assert_close(v1(x), expected)


@every_shape
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_v2_is_scaled_dot_product_attention(shape, qkv_bias):
    x, v2 = drawn(*shape), SelfAttention_v2(4, 3, qkv_bias)
    assert_close(v2(x), F.scaled_dot_product_attention(v2.W_query(x), v2.W_key(x), v2.W_value(x)))


def test_self_attention_is_the_second_version():
    assert attention.SelfAttention is SelfAttention_v2


def test_v1_and_v2_agree_when_the_weights_are_transposed():
    v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
    v1.load_state_dict({name.removesuffix(".weight"): tensor.T for name, tensor in v2.state_dict().items()})
    assert_close(v1(INPUTS), v2(INPUTS))


def fused_causal(module: CausalAttention, x: Tensor) -> Tensor:
    queries, keys, values = module.W_query(x), module.W_key(x), module.W_value(x)
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


@every_shape
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_causal_attention_is_fused_causal_attention(shape, qkv_bias):
    x, causal = drawn(*shape), CausalAttention(4, 3, context_length=6, qkv_bias=qkv_bias)
    assert_close(causal(x), fused_causal(causal, x))


@every_shape
def test_wrapper_joins_fused_causal_heads_in_order(shape):
    x, wrapper = drawn(*shape), MultiHeadAttentionWrapper(4, 3, 6, 0.0, num_heads=3)
    assert_close(wrapper(x), torch.cat([fused_causal(head, x) for head in wrapper.heads], dim=-1))


@every_shape
@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
def test_multi_head_attention_is_fused_causal_attention_per_head(shape, num_heads):
    x, module = drawn(*shape), MultiHeadAttention(4, 6, 6, 0.0, num_heads, qkv_bias=True)
    heads = []
    for channels in torch.arange(6).chunk(num_heads):
        parts = [layer(x)[..., channels] for layer in (module.W_query, module.W_key, module.W_value)]
        heads.append(F.scaled_dot_product_attention(*parts, is_causal=True))
    assert_close(module(x), module.out_proj(torch.cat(heads, dim=-1)))


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 5, 6), (1, 1, 6), (2, 6, 6)], ids=str)
@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_multi_head_attention_is_pytorchs_multihead_attention(shape, num_heads, qkv_bias):
    ours = MultiHeadAttention(6, 6, 8, 0.0, num_heads, qkv_bias)
    theirs = nn.MultiheadAttention(6, num_heads, batch_first=True)
    layers = (ours.W_query, ours.W_key, ours.W_value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        if qkv_bias:
            theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = drawn(*shape)
    expected, _ = theirs(x, x, x, attn_mask=causal_mask(shape[-2]))
    assert_close(ours(x), expected)


@every_trainable
def test_float64_in_float64_out(build):
    x = drawn(2, 5, 4, dtype=torch.float64)
    module = build(4, 6, num_heads=2).double()
    assert module(x).dtype == torch.float64
    assert_close(module(x).float(), copy.deepcopy(module).float()(x.float()))


# What the classes have in common


@every_trainable
def test_inputs_are_not_modified(build):
    x = drawn(2, 5, 4)
    before = x.clone()
    build(4, 6, num_heads=2)(x)
    assert torch.equal(x, before)


@every_trainable
def test_layout_in_memory_does_not_matter(build):
    module = build(4, 6, num_heads=2)
    x = drawn(5, 2, 4).transpose(0, 1)
    assert not x.is_contiguous()
    assert_close(module(x), module(x.contiguous()))


@every_trainable
def test_batch_entries_do_not_talk(build):
    module, x = build(4, 6, num_heads=2), drawn(3, 5, 4)
    assert_close(module(x), torch.stack([module(entry) for entry in x]))


@every_trainable
def test_gradients_reach_every_parameter_and_the_input(build):
    module, x = build(4, 6, num_heads=2), drawn(2, 5, 4).requires_grad_()
    (module(x) * drawn(2, 5, 6, seed=1)).sum().backward()
    for name, tensor in [*module.named_parameters(), ("x", x)]:
        assert tensor.grad is not None and tensor.grad.abs().max() > 1e-6, name


def test_v1_draws_its_weights_uniformly_in_order():
    v1 = seeded(123, lambda: SelfAttention_v1(3, 2))
    torch.manual_seed(123)
    for parameter in (v1.W_query, v1.W_key, v1.W_value):
        assert isinstance(parameter, nn.Parameter)
        assert torch.equal(parameter, torch.rand(3, 2))


PROJECTIONS = ("W_query", "W_key", "W_value")
QKV = {f"{name}.weight": (2, 3) for name in PROJECTIONS}
QKV_WITH_BIAS = QKV | {f"{name}.bias": (2,) for name in PROJECTIONS}
OUT_PROJ = {"out_proj.weight": (2, 2), "out_proj.bias": (2,)}


def in_heads(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"heads.{number}.{name}": shape for number in range(2) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (SelfAttention_v1(3, 2), {name: (3, 2) for name in PROJECTIONS}),
        (SelfAttention_v2(3, 2), QKV),
        (SelfAttention_v2(3, 2, qkv_bias=True), QKV_WITH_BIAS),
        (CausalAttention(3, 2, 6), QKV),
        (CausalAttention(3, 2, 6, qkv_bias=True), QKV_WITH_BIAS),
        (MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2), in_heads(QKV)),
        (MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2, qkv_bias=True), in_heads(QKV_WITH_BIAS)),
        (MultiHeadAttention(3, 2, 6, 0.0, 2), QKV | OUT_PROJ),
        (MultiHeadAttention(3, 2, 6, 0.0, 2, qkv_bias=True), QKV_WITH_BIAS | OUT_PROJ),
    ],
)
def test_parameters_have_the_agreed_names_and_shapes(module, shapes):
    assert {name: tuple(parameter.shape) for name, parameter in module.named_parameters()} == shapes


# Normalizers


class Squares(BaseNormalizer):
    """Weights in proportion to the squared score: works for scores of any sign, and zero stays zero."""

    mask_value = 0.0

    def normalize(self, inputs: Tensor) -> Tensor:
        return inputs**2 / (inputs**2).sum(dim=-1, keepdim=True)


OTHER_NORMALIZERS = [AddOneNormalizer(), Squares()]
either_normalizer = pytest.mark.parametrize("normalizer", OTHER_NORMALIZERS, ids=["AddOne", "Squares"])


@either_normalizer
@pytest.mark.parametrize("shape", [(12, 3), (2, 5, 3)], ids=str)
def test_simple_attention_uses_the_normalizer_it_is_given(normalizer, shape):
    x = drawn(*shape).abs()
    weights = normalizer.normalize(x @ x.mT)
    assert_close(SimpleSelfAttention(normalizer).get_weights(x @ x.mT), weights)
    assert_close(SimpleSelfAttention(normalizer)(x), weights @ x)


@either_normalizer
@pytest.mark.parametrize("build", [build_v1, build_v2])
def test_attention_without_mask_uses_the_normalizer_it_is_given(normalizer, build):
    num_tokens = 5
    module = with_positive_scores(build(num_tokens, num_tokens, normalizer))
    (weights,) = revealed_weights(module, num_tokens)
    scores = attend_scores(module, num_tokens)
    assert_close(weights, normalizer.normalize(scores))


@either_normalizer
@every_causal
def test_masked_attention_uses_the_normalizer_it_is_given(normalizer, build):
    num_tokens = 5
    module = with_positive_scores(build(num_tokens, 2 * num_tokens, normalizer, num_heads=2))
    if build is build_causal:
        module = with_positive_scores(build(num_tokens, num_tokens, normalizer))
    weights = revealed_weights(module, num_tokens, num_heads=1 if build is build_causal else 2)
    assert (weights.triu(diagonal=1) == 0).all(), "a later token has a weight"
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    for head in weights:
        assert_close(head[-1], normalizer.normalize(head[-1])) if isinstance(normalizer, AddOneNormalizer) else None
    softmax_module = copy.deepcopy(module)
    for part in softmax_module.modules():
        if hasattr(part, "normalizer"):
            part.normalizer = SOFTMAX
    softmax_weights = revealed_weights(softmax_module, num_tokens, len(weights))
    assert (weights - softmax_weights).abs().max() > 1e-3, "softmax was used all the same"
