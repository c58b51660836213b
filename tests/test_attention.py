"""The attention family: known numbers, agreement with PyTorch's own attention, masks, dropout, heads."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from utils import attention
from utils.attention import (
    CachedAttention,
    CausalAttention,
    KeyValueCache,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    SimpleSelfAttention,
    attend,
    attend_fused,
    attention_weights,
    context_vector,
    copy_weights,
    cross_attention,
    dot_product_score,
    fused_attention,
    merge_heads,
    project,
    scaled_scores,
    split_heads,
)
from utils.masking import causal_mask
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


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


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


def heads_of(build: Callable[..., nn.Module]) -> int:
    return 2 if build in (build_wrapper, build_multi_head) else 1


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


@every_shape
@pytest.mark.parametrize("d_out", [1, 3, 4])
def test_projections_are_linear_layers_without_bias_in_order(shape, d_out):
    x, weights = drawn(*shape), drawn(3, 4, d_out, seed=1)
    projections = project(x, *weights)
    assert isinstance(projections, tuple)
    for projection, weight in zip(projections, weights, strict=True):
        assert_close(projection, F.linear(x, weight.T))


def test_projecting_an_input_leaves_it_and_the_weights_alone():
    x, weights = drawn(2, 5, 4, dtype=torch.float64), drawn(3, 4, 2, seed=1, dtype=torch.float64)
    before = x.clone(), weights.clone()
    projections = project(x, *weights)
    assert all(projection.dtype == torch.float64 for projection in projections)
    assert_close((x, weights), before, rtol=0, atol=0)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("num_queries", "num_keys", "d_k"), [(5, 7, 4), (7, 5, 3), (1, 4, 1), (4, 4, 4)])
def test_scaled_scores_are_those_of_pytorchs_attention(lead, num_queries, num_keys, d_k):
    queries, keys = drawn(*lead, num_queries, d_k, seed=1), drawn(*lead, num_keys, d_k, seed=2)
    attn_scores = scaled_scores(queries, keys)
    assert attn_scores.shape == (*lead, num_queries, num_keys)
    values = torch.eye(num_keys).expand(*lead, num_keys, num_keys)  # one-hot values show the weights
    assert_close(attn_scores.softmax(dim=-1), F.scaled_dot_product_attention(queries, keys, values))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), num_queries=st.integers(1, 5), num_keys=st.integers(1, 5), d_k=st.integers(1, 9))
def test_scaled_scores_grow_with_the_vectors_and_with_the_root_of_their_length(seed, num_queries, num_keys, d_k):
    queries, keys = drawn(num_queries, d_k, seed=seed), drawn(num_keys, d_k, seed=seed + 1)
    attn_scores = scaled_scores(queries, keys)
    assert_close(scaled_scores(3 * queries, keys), 3 * attn_scores)
    assert_close(scaled_scores(queries.repeat(1, 4), keys.repeat(1, 4)), 2 * attn_scores)
    assert_close(scaled_scores(keys, queries), attn_scores.T)


@pytest.mark.parametrize("d_k", [4, 64, 1024])
def test_scaled_scores_have_variance_one_whatever_their_length(d_k):
    variance = scaled_scores(drawn(100, d_k, seed=1), drawn(100, d_k, seed=2)).var()
    assert 0.85 < variance < 1.15


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


@settings(deadline=None, max_examples=30)
@given(d_in=st.integers(1, 5), d_out=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_copied_weights_make_version_1_compute_what_version_2_computes(d_in, d_out, seed):
    v1, v2 = seeded(seed, lambda: SelfAttention_v1(d_in, d_out)), SelfAttention_v2(d_in, d_out)
    copy_weights(v2, v1)
    x = drawn(2, 4, d_in, seed=seed)
    assert_close(v1(x), v2(x))


def test_copied_weights_are_not_shared_and_go_on_learning():
    v1, v2 = SelfAttention_v1(3, 3), SelfAttention_v2(3, 3)
    parameters, before = list(v1.parameters()), copy.deepcopy(v2.state_dict())
    copy_weights(v2, v1)
    assert all(now is then for now, then in zip(v1.parameters(), parameters, strict=True))
    v1(drawn(4, 3)).sum().backward()
    assert all(parameter.grad is None for parameter in v2.parameters())
    torch.optim.SGD(v1.parameters(), lr=1.0).step()
    assert not torch.equal(v1.W_value, v2.W_value.weight.T)
    assert_close(v2.state_dict(), before, rtol=0, atol=0)


def test_weights_with_bias_are_not_copied():
    v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2, qkv_bias=True)
    before = copy.deepcopy(v1.state_dict())
    with pytest.raises(ValueError, match="bias"):
        copy_weights(v2, v1)
    assert_close(v1.state_dict(), before, rtol=0, atol=0)


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


def gradients(result: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """Of a weighted sum in which no entry counts like another."""
    weights = torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
    return torch.autograd.grad((result * weights).sum(), leaves)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 5, 6), (1, 1, 6), (2, 3, 7, 6)], ids=str)
@pytest.mark.parametrize("num_heads", [1, 2, 8])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_fused_attention_gives_what_the_module_gives_in_eval_mode(shape, num_heads, qkv_bias):
    mha, x = MultiHeadAttention(6, 8, 7, 0.5, num_heads, qkv_bias).eval(), drawn(*shape).requires_grad_()
    leaves = [x, *mha.parameters()]
    assert_close(fused_attention(mha, x), mha(x))
    assert_close(gradients(fused_attention(mha, x), *leaves), gradients(mha(x), *leaves))


def test_fused_attention_calls_the_kernel_once_and_the_module_never(monkeypatch):
    mha, x, kernel, calls = MultiHeadAttention(3, 4, 6, 0.0, 2), drawn(2, 5, 3), F.scaled_dot_product_attention, []
    expected = mha(x)
    monkeypatch.setattr(mha, "forward", None)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(k) or kernel(*a, **k))
    assert_close(fused_attention(mha, x), expected)
    assert calls == [{"dropout_p": 0.0, "is_causal": True}]


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 5, 6), (1, 1, 6), (2, 7, 6)], ids=str)
@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_fused_module_gives_what_the_explicit_one_gives(shape, num_heads):
    fused = MultiHeadAttention(6, 8, 7, 0.0, num_heads, qkv_bias=True, fused=True)
    explicit = MultiHeadAttention(6, 8, 7, 0.0, num_heads, qkv_bias=True)
    explicit.load_state_dict(fused.state_dict())
    x = drawn(*shape).requires_grad_()
    assert_close(fused(x), explicit(x))
    found = gradients(fused(x), x, *fused.parameters())
    assert_close(found, gradients(explicit(x), x, *explicit.parameters()))


@pytest.mark.parametrize("fused", [False, True])
def test_fused_module_calls_the_kernel_and_the_explicit_one_does_not(fused, monkeypatch):
    kernel, calls = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(k) or kernel(*a, **k))
    MultiHeadAttention(3, 4, 6, 0.0, 2, fused=fused)(drawn(2, 5, 3))
    assert len(calls) == fused


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_keeps_the_mean_in_training_and_does_nothing_in_eval_mode(fused):
    module = MultiHeadAttention(3, 4, 5, 0.4, 2, fused=fused)
    x = drawn(1, 5, 3)
    with torch.no_grad():
        whole = module.eval()(x)
        assert_close(module(x), whole, rtol=0, atol=0)
        many = module.train()(x.expand(4000, 5, 3))
    assert not torch.equal(many[0], many[1])
    assert_close(many.mean(dim=0), whole[0], rtol=0, atol=0.05)


def test_fused_module_drops_weights_with_their_probability():
    """One token that sees itself: its output is 0 or 1/(1-p) times the value."""
    module = MultiHeadAttention(1, 2, 1, 0.3, 2, fused=True).train()
    with torch.no_grad():
        module.W_value.weight.fill_(1)
        module.out_proj.weight.copy_(torch.eye(2))
        module.out_proj.bias.zero_()
        out = module(torch.ones(3000, 1, 1))
    assert_close(out.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs((out == 0).float().mean().item() - 0.3) < 0.03


def test_fused_module_is_for_softmax_only():
    with pytest.raises(ValueError, match="softmax only, got AddOneNormalizer"):
        MultiHeadAttention(3, 4, 6, 0.0, 2, normalizer=AddOneNormalizer(), fused=True)
    assert MultiHeadAttention(3, 4, 6, 0.0, 2, normalizer=SoftmaxNormalizer(), fused=True).fused


@pytest.mark.parametrize("num_queries", [1, 2, 4, 5])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
def test_attend_fused_takes_queries_for_the_last_tokens(num_queries, lead):
    queries, keys, values = drawn(3, *lead, 5, 4)
    hidden = causal_mask(5)
    expected = attend(queries, keys, values, SOFTMAX, hidden)[..., -num_queries:, :]
    assert_close(attend_fused(queries[..., -num_queries:, :], keys, values), expected)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("pieces", [(7,), (1,) * 7, (3, 4), (1, 5, 1), (2, 2, 3), (6, 1)], ids=str)
def test_pieces_through_a_cache_give_the_full_pass(fused, pieces):
    mha, x = MultiHeadAttention(3, 8, 9, 0.5, 4, qkv_bias=True, fused=fused).eval(), drawn(2, 7, 3)
    cache = KeyValueCache(batch_size=2, num_heads=4, max_length=8, head_dim=2)
    with torch.no_grad():
        found = [mha(part, cache) for part in x.split(pieces, dim=1)]
        assert_close(torch.cat(found, dim=1), mha(x))
    assert cache.length == 7


def test_cache_returns_what_it_was_given_in_order():
    keys, values = drawn(2, 3, 2, 5, 4)  # (B, H, T, D) each
    cache = KeyValueCache(3, 2, 6, 4)
    for end in range(1, 6):
        held = cache.append(keys[:, :, end - 1 : end], values[:, :, end - 1 : end])
        assert_close(held, (keys[:, :, :end], values[:, :, :end]), rtol=0, atol=0)
        assert cache.length == end
    cache.reset()
    assert cache.length == 0
    held = cache.append(values[:, :, :2], keys[:, :, :2])
    assert_close(held, (values[:, :, :2], keys[:, :, :2]), rtol=0, atol=0)


def test_cache_takes_its_memory_once():
    cache = KeyValueCache(1, 2, 6, 4, dtype=torch.float64)
    places = cache.keys.data_ptr(), cache.values.data_ptr()
    for _ in range(6):
        keys, values = cache.append(*torch.zeros(2, 1, 2, 1, 4, dtype=torch.float64))
        assert (keys.data_ptr(), values.data_ptr()) == places
        assert keys.dtype == values.dtype == torch.float64


def test_full_cache_refuses_with_both_lengths_and_keeps_what_it_holds():
    cache = KeyValueCache(1, 2, 6, 4)
    cache.append(*torch.ones(2, 1, 2, 5, 4))
    with pytest.raises(ValueError, match=r"\b7\b.*\b6\b"):
        cache.append(*torch.zeros(2, 1, 2, 2, 4))
    assert cache.length == 5
    assert bool((cache.keys[:, :, :5] == 1).all())


def test_cache_refuses_another_batch_size_with_both_numbers():
    cache = KeyValueCache(2, 2, 6, 4)
    with pytest.raises(ValueError, match="holds 2 sequences, the new tokens belong to 3"):
        cache.append(*torch.zeros(2, 3, 2, 1, 4))
    with pytest.raises(ValueError, match="holds 2 sequences, the new tokens belong to 1"):
        cache.append(*torch.zeros(2, 1, 2, 1, 4))  # would spread over both


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("num_heads", [1, 2, 6])
def test_steps_give_the_rows_of_the_full_pass(fused, batch_size, num_heads):
    mha = MultiHeadAttention(4, 6, 5, 0.5, num_heads, fused=fused).double().eval()
    cached, other = CachedAttention(mha), CachedAttention(mha)
    for seed, rows in enumerate((batch_size, batch_size + 1)):
        x = drawn(rows, 5, 4, seed=seed, dtype=torch.float64)
        with torch.no_grad():
            found = []
            for token in x.split(1, dim=1):
                found.append(cached.step(token))
                other.step(-token)  # has keys and values of its own
            assert_close(torch.cat(found, dim=1), mha(x))
        cached.reset()
        other.reset()


def test_steps_project_every_token_once():
    mha, rows = MultiHeadAttention(3, 4, 6, 0.0, 2).eval(), []
    for layer in (mha.W_query, mha.W_key, mha.W_value):
        layer.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
    cached = CachedAttention(mha)
    for token in drawn(2, 6, 3).split(1, dim=1):
        cached.step(token)
    assert rows == [1] * 18


def test_step_beyond_the_context_is_refused_with_both_lengths():
    cached, token = CachedAttention(MultiHeadAttention(3, 4, 6, 0.0, 2).eval()), drawn(1, 1, 3)
    for _ in range(6):
        cached.step(token)
    with pytest.raises(ValueError, match=r"\b7\b.*\b6\b"):
        cached.step(token)
    cached.reset()
    assert cached.step(token).shape == (1, 1, 4)


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 0, 3), (1, 3), (1, 1, 1, 3)], ids=str)
def test_step_takes_exactly_one_token(shape):
    with pytest.raises(ValueError, match="one token at a time"):
        CachedAttention(MultiHeadAttention(3, 4, 6, 0.0, 2)).step(torch.zeros(shape))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("num_queries", "num_keys"), [(3, 5), (5, 3), (4, 4), (1, 4), (4, 1)])
def test_cross_attention_is_scaled_dot_product_attention(lead, num_queries, num_keys):
    x, context = drawn(*lead, num_queries, 4, seed=1), drawn(*lead, num_keys, 6, seed=2)
    W_query, W_key, W_value = drawn(4, 2, seed=3), drawn(6, 2, seed=4), drawn(6, 2, seed=5)
    expected = F.scaled_dot_product_attention(x @ W_query, context @ W_key, context @ W_value)
    assert_close(cross_attention(x, context, W_query, W_key, W_value), expected)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(3, 5), (5, 3), (4, 4)])
def test_cross_attention_is_pytorchs_multihead_attention_with_one_head(num_queries, num_keys):
    x, context = drawn(2, num_queries, 4, seed=1), drawn(2, num_keys, 6, seed=2)
    theirs = nn.MultiheadAttention(4, num_heads=1, bias=False, kdim=6, vdim=6, batch_first=True)
    nn.init.eye_(theirs.out_proj.weight)
    weights = (theirs.q_proj_weight.T, theirs.k_proj_weight.T, theirs.v_proj_weight.T)
    assert_close(cross_attention(x, context, *weights), theirs(x, context, context)[0])


def test_cross_attention_of_a_sequence_with_itself_is_self_attention():
    v1, x = SelfAttention_v1(3, 2), drawn(2, 5, 3)
    assert_close(cross_attention(x, x, v1.W_query, v1.W_key, v1.W_value), v1(x))


def test_cross_attention_minds_neither_the_order_of_the_context_nor_other_queries():
    x, context, weights = drawn(2, 3, 4, seed=1), drawn(2, 5, 4, seed=2), drawn(3, 4, 2, seed=3)
    contexts = cross_attention(x, context, *weights)
    assert_close(cross_attention(x, context.flip(1), *weights), contexts)
    assert_close(cross_attention(x[:, 1:2], context, *weights), contexts[:, 1:2])


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
        (SelfAttention_v1(3, 2), dict.fromkeys(PROJECTIONS, (3, 2))),
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


either_normalizer = pytest.mark.parametrize("normalizer", [AddOneNormalizer(), Squares()], ids=["AddOne", "Squares"])


@either_normalizer
@pytest.mark.parametrize("shape", [(12, 3), (2, 5, 3)], ids=str)
def test_simple_attention_uses_the_normalizer_it_is_given(normalizer, shape):
    x = drawn(*shape).abs()
    weights = normalizer.normalize(x @ x.mT)
    assert_close(SimpleSelfAttention(normalizer).get_weights(x @ x.mT), weights)
    assert_close(SimpleSelfAttention(normalizer)(x), weights @ x)


@either_normalizer
@every_trainable
def test_trainable_attention_uses_the_normalizer_it_is_given(normalizer, build):
    num_tokens, num_heads = 5, heads_of(build)
    module = build(num_tokens, num_heads * num_tokens, normalizer, num_heads=num_heads)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()  # AddOneNormalizer needs scores that are not negative
    weights = revealed_weights(module, num_tokens, num_heads)
    # The inputs are one-hot, so that the queries and keys are the weights of their projections.
    projections = dict(module.named_parameters())
    parts = []
    for name in ("W_query", "W_key"):
        found = [tensor if key == name else tensor.T for key, tensor in projections.items() if name in key]
        parts.append(split_heads(torch.cat(found, dim=-1), num_heads))
    scores = parts[0] @ parts[1].mT / num_tokens**0.5
    masked = scores if build in (build_v1, build_v2) else scores.tril()
    assert_close(weights, normalizer.normalize(masked))


@pytest.mark.parametrize("normalizer", [AddOneNormalizer(), Squares(), SOFTMAX], ids=["AddOne", "Squares", "Softmax"])
@every_causal
def test_masked_weights_are_exactly_zero_and_rows_add_to_one(normalizer, build):
    num_tokens, num_heads = 5, heads_of(build)
    module = build(num_tokens, num_heads * num_tokens, normalizer, num_heads=num_heads)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    weights = revealed_weights(module, num_tokens, num_heads)
    assert (weights.triu(diagonal=1) == 0).all()
    assert (weights.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert_close(weights.sum(dim=-1), torch.ones(num_heads, num_tokens))


# Dropout


@every_causal
def test_dropout_scales_the_surviving_weights_in_training_only(build):
    num_tokens, num_heads, p = 40, heads_of(build), 0.25
    module = build(num_tokens, num_heads * num_tokens, length=num_tokens, dropout=p, num_heads=num_heads)
    kept = revealed_weights(module.eval(), num_tokens, num_heads)
    assert_close(kept.sum(dim=-1), torch.ones(num_heads, num_tokens))
    dropped = revealed_weights(seeded(0, module.train), num_tokens, num_heads)
    survives = dropped != 0
    assert_close(dropped, kept / (1 - p) * survives)
    lower = torch.ones(num_tokens, num_tokens).tril().bool().expand_as(kept)
    assert survives[lower].float().mean() == pytest.approx(1 - p, abs=0.06)


@every_causal
def test_dropout_of_zero_changes_nothing_in_training(build):
    module = build(3, 4, num_heads=2)
    assert torch.equal(module.train()(TWO_COPIES), module.eval()(TWO_COPIES))


@every_causal
def test_dropout_draws_anew_in_training_and_never_in_eval(build):
    module = build(3, 4, dropout=0.5, num_heads=2)
    torch.manual_seed(0)
    assert not torch.equal(module.train()(TWO_COPIES), module(TWO_COPIES))
    assert torch.equal(module.eval()(TWO_COPIES), module(TWO_COPIES))


# The causal mask


@settings(deadline=None, max_examples=30)
@given(data=st.data(), num_tokens=st.integers(2, 8), num_heads=st.sampled_from([1, 2, 4]))
@every_causal
def test_a_later_token_changes_no_earlier_output(build, data, num_tokens, num_heads):
    changed = data.draw(st.integers(1, num_tokens - 1), label="changed position")
    size = data.draw(st.sampled_from([0.1, 10.0, 1000.0]), label="size of the change")
    module = seeded(0, lambda: build(3, 4, num_heads=num_heads))
    before = drawn(2, num_tokens, 3)
    after = before.clone()
    after[:, changed:] += size * drawn(2, num_tokens - changed, 3, seed=1)
    assert_close(module(after)[:, :changed], module(before)[:, :changed], atol=1e-6, rtol=0)
    assert (module(after)[:, changed] - module(before)[:, changed]).abs().max() > 1e-4


@pytest.mark.parametrize("build", [build_v1, build_v2])
def test_without_mask_a_later_token_changes_earlier_outputs(build):
    module = build(3, 4)
    after = INPUTS.clone()
    after[5] += 10
    assert (module(after)[:5] - module(INPUTS)[:5]).abs().max() > 1e-3


@every_causal
@pytest.mark.parametrize("num_tokens", [1, 2, 5, 8])
def test_short_sequence_uses_the_corner_of_the_mask(build, num_tokens):
    long = build(3, 4, length=8, num_heads=2)
    fitting = build(3, 4, length=num_tokens, num_heads=2)
    parameters = dict(long.named_parameters())
    fitting.load_state_dict(parameters, strict=False)
    x = drawn(2, 8, 3)
    assert_close(long(x[:, :num_tokens]), fitting(x[:, :num_tokens]))
    assert_close(long(x[:, :num_tokens]), long(x)[:, :num_tokens])


@every_causal
@pytest.mark.parametrize("shape", [(7, 3), (2, 7, 3)], ids=str)
def test_too_long_sequence_is_refused_with_both_lengths(build, shape):
    with pytest.raises(ValueError, match=r"\b7\b.*\b6\b"):
        build(3, 4, length=6)(torch.zeros(shape))


@every_causal
def test_mask_is_a_buffer(build):
    module = build(3, 4, length=6, num_heads=2)
    masks = {name: buffer for name, buffer in module.named_buffers() if name.split(".")[-1] == "mask"}
    assert len(masks) == (2 if build is build_wrapper else 1)
    for name, mask in masks.items():
        assert torch.equal(mask, causal_mask(6))
        assert not mask.requires_grad
        assert name in module.state_dict(), "it is not saved"
        assert name not in dict(module.named_parameters()), "an optimizer would change it"
    assert all(buffer.device.type == "meta" for buffer in module.to("meta").buffers()), "it stays behind"


@every_causal
def test_saved_module_gives_the_same_after_loading(build, tmp_path):
    saved, fresh = build(3, 4, num_heads=2), build(3, 4, num_heads=2)
    torch.save(saved.state_dict(), tmp_path / "weights.pt")
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(fresh(TWO_COPIES), saved(TWO_COPIES))


# Heads


@st.composite
def features_and_heads(draw: st.DrawFn) -> tuple[Tensor, int]:
    num_heads, head_dim, num_tokens = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    x = torch.arange(1.0, 1 + torch.Size([*lead, num_tokens, num_heads * head_dim]).numel())
    x = x.view(*lead, num_tokens, num_heads * head_dim)
    if draw(st.booleans()):
        x = x.transpose(0, -1).contiguous().transpose(0, -1)  # same values, other layout
    return x, num_heads


@settings(deadline=None)
@given(case=features_and_heads())
def test_head_h_holds_its_own_block_of_channels(case):
    x, num_heads = case
    heads = split_heads(x, num_heads)
    head_dim = x.shape[-1] // num_heads
    assert heads.shape == (*x.shape[:-2], num_heads, x.shape[-2], head_dim)
    for h in range(num_heads):
        assert torch.equal(heads[..., h, :, :], x[..., h * head_dim : (h + 1) * head_dim])


@settings(deadline=None)
@given(case=features_and_heads())
def test_merging_undoes_splitting(case):
    x, num_heads = case
    assert torch.equal(merge_heads(split_heads(x, num_heads)), x)


def test_bare_view_has_the_same_shape_and_other_contents():
    x = torch.arange(24).view(1, 4, 6)
    bare = x.view(1, 2, 4, 3)
    assert bare.shape == split_heads(x, 2).shape
    assert not torch.equal(bare, split_heads(x, 2))


@pytest.mark.parametrize(("channels", "num_heads"), [(6, 4), (2, 3), (6, 0), (6, -2)])
def test_channels_that_do_not_divide_are_refused_with_both_numbers(channels, num_heads):
    with pytest.raises(ValueError, match=rf"\b{channels}\b.* {num_heads}\b"):
        split_heads(torch.zeros(1, 2, channels), num_heads)


@pytest.mark.parametrize(("d_out", "num_heads"), [(6, 4), (1, 2), (0, 2), (6, 0), (6, -2)])
def test_multi_head_attention_refuses_heads_of_unequal_or_no_size(d_out, num_heads):
    with pytest.raises(ValueError, match=f"d_out={d_out}, num_heads={num_heads}$"):
        MultiHeadAttention(3, d_out, 6, 0.0, num_heads)


def test_multi_head_attention_tells_its_sizes():
    module = MultiHeadAttention(3, 6, 8, 0.0, num_heads=2)
    assert (module.d_out, module.num_heads, module.head_dim, module.context_length) == (6, 2, 3, 8)


def test_wrapper_is_a_list_of_independent_causal_heads():
    wrapper = MultiHeadAttentionWrapper(3, 2, 6, 0.5, num_heads=3)
    assert isinstance(wrapper.heads, nn.ModuleList)
    assert [type(head) for head in wrapper.heads] == [CausalAttention] * 3
    assert [head.dropout.p for head in wrapper.heads] == [0.5] * 3
    assert len({head.W_query.weight[0, 0].item() for head in wrapper.heads}) == 3


def as_multi_head(wrapper: MultiHeadAttentionWrapper) -> MultiHeadAttention:
    """The same heads in one module: stacked projections, and an output projection that copies."""
    num_heads, (head_dim, d_in) = len(wrapper.heads), wrapper.heads[0].W_query.weight.shape
    length = wrapper.heads[0].context_length
    joined = MultiHeadAttention(d_in, num_heads * head_dim, length, 0.0, num_heads, qkv_bias=True)
    with torch.no_grad():
        for name in PROJECTIONS:
            layer, parts = getattr(joined, name), [getattr(head, name) for head in wrapper.heads]
            layer.weight.copy_(torch.cat([part.weight for part in parts]))
            layer.bias.copy_(torch.cat([part.bias for part in parts]))
        joined.out_proj.weight.copy_(torch.eye(num_heads * head_dim))
        joined.out_proj.bias.zero_()
    return joined


@pytest.mark.parametrize("num_heads", [1, 2, 3])
def test_weight_splits_give_what_heads_side_by_side_give(num_heads):
    wrapper = MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads, qkv_bias=True)
    assert_close(as_multi_head(wrapper)(TWO_COPIES), wrapper(TWO_COPIES))


def test_output_projection_adds_up_what_each_head_contributes():
    wrapper = MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=3, qkv_bias=True)
    joined = as_multi_head(wrapper)
    out_proj = joined.out_proj
    out_proj.reset_parameters()
    blocks = out_proj.weight.split(2, dim=1)
    contributions = [head(TWO_COPIES) @ block.T for head, block in zip(wrapper.heads, blocks, strict=True)]
    assert_close(joined(TWO_COPIES), sum(contributions) + out_proj.bias)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SelfAttention_v2(3, 2, qkv_bias=True),
        lambda: CausalAttention(3, 2, 6, qkv_bias=True),
        lambda: MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2, qkv_bias=True),
        lambda: MultiHeadAttention(3, 2, 6, 0.0, num_heads=2, qkv_bias=True),
    ],
    ids=["v2", "causal", "wrapper", "multi_head"],
)
def test_bias_of_queries_and_values_is_used(build):
    for name in ("W_query.bias", "W_value.bias"):
        module = build()
        before = module(TWO_COPIES)
        with torch.no_grad():
            for found, parameter in module.named_parameters():
                if found.endswith(name):
                    parameter += torch.tensor([1.0, -2.0])
        assert (module(TWO_COPIES) - before).abs().max() > 1e-4, name
