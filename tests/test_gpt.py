"""GPT-2: its parts against PyTorch's, the whole against transformers, in both directions."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from utils.gpt import (
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    from_pretrained,
    gelu,
    gpt2_layout,
    gpt2_state_dict,
    load_gpt2_weights,
)
from utils.gpt_config import PRESETS, GPTConfig
from utils.masking import is_causal

SMALL = {"vocab_size": 11, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ids_of(rows: int, tokens: int, vocab_size: int = SMALL["vocab_size"], seed: int = 0) -> Tensor:
    return torch.randint(vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def scatter(module: nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """Random numbers everywhere: fresh biases are 0 and fresh scales 1, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        is_scale = parameter.dim() == 1 and not name.endswith(("bias", "shift"))
        is_scale |= ".ln_" in name and name.endswith("weight")
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + is_scale)


def small_model(seed: int = 0, **changes: object) -> GPTModel:
    """A model without dropout, with large random weights."""
    model = GPTModel(GPTConfig(**SMALL | {"drop_rate": 0.0} | changes))
    scatter(model, seed)
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# The parts

both_ways = pytest.mark.parametrize("fused", [False, True], ids=["written-out", "fused"])


@both_ways
@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 5, 6), (3, 2)], ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])  # the small one shows where epsilon stands, and how large it is
def test_layer_norm_is_that_of_pytorch(shape, size, fused):
    ours, theirs = LayerNorm(shape[-1], fused), nn.LayerNorm(shape[-1])
    scatter(ours)
    theirs.load_state_dict({"weight": ours.scale.detach(), "bias": ours.shift.detach()})
    x = (3 + drawn(*shape)) * size
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [norm(given) for norm, given in zip((ours, theirs), inputs, strict=True)]
    assert_close(*outputs, atol=1e-5, rtol=1e-4)
    for output in outputs:
        (output * drawn(*shape, seed=1)).sum().backward()
    assert_close(inputs[0].grad * size, inputs[1].grad * size, atol=1e-5, rtol=1e-3)
    assert_close([ours.scale.grad, ours.shift.grad], [theirs.weight.grad, theirs.bias.grad], atol=1e-4, rtol=1e-4)


@both_ways
def test_layer_norm_of_equal_channels_is_the_shift(fused):
    norm = LayerNorm(4, fused)
    scatter(norm)
    assert_close(norm(torch.full((2, 4), 5.0)), norm.shift.expand(2, 4))


def test_gelu_is_the_tanh_form_of_pytorch():
    x = torch.linspace(-12, 12, 2001, dtype=torch.float64, requires_grad=True)
    ours, theirs = gelu(x), F.gelu(x, approximate="tanh")
    assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    assert_close(*slopes, atol=1e-12, rtol=1e-12)
    assert (ours - F.gelu(x)).abs().max() > 1e-4  # the exact form is another function
    assert gelu(torch.tensor([-1e4, 1e4])).tolist() == [0.0, 1e4]


def test_feed_forward_is_two_layers_with_gelu_between():
    cfg = GPTConfig(emb_dim=6, n_heads=1)
    ff, x = FeedForward(cfg), drawn(2, 3, 6)
    scatter(ff)
    first, _, last = ff.layers
    assert first.weight.shape == (24, 6) and last.weight.shape == (6, 24)
    assert_close(ff(x), gelu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias)


@both_ways
def test_block_normalises_before_each_part_and_adds_to_the_stream(fused):
    block, x = TransformerBlock(GPTConfig(**SMALL, drop_rate=0.5, fused=fused)).eval(), 2 + drawn(2, 5, 12)
    scatter(block)
    assert (block.norm1.fused, block.norm2.fused, block.att.fused) == (fused,) * 3
    after_attention = x + block.att(block.norm1(x))
    assert_close(block(x), after_attention + block.ff(block.norm2(after_attention)))


def test_block_that_drops_everything_leaves_the_stream_alone():
    block, x = TransformerBlock(GPTConfig(**SMALL, drop_rate=1.0, fused=False)), drawn(2, 5, 12)
    scatter(block)
    assert torch.equal(block(x), x)
    assert not torch.allclose(block.eval()(x), x)


def test_embeddings_are_dropped_in_training_only():
    model, ids = small_model(drop_rate=1.0, fused=False), ids_of(2, 5)
    logits = model(ids)
    assert torch.equal(logits, logits[:1, :1].expand_as(logits)), "the logits know the tokens"
    assert model.eval()(ids).std(dim=1).min() > 0.01


# The whole


@both_ways
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_model_is_the_sum_of_its_parts(fused, tied):
    model, ids = small_model(fused=fused, tied=tied), ids_of(2, 5)
    x = model.tok_emb.weight[ids] + model.pos_emb.weight[:5]
    for block in model.trf_blocks:
        x = block(x)
    head = model.tok_emb.weight if tied else model.out_head.weight
    assert_close(model(ids), model.final_norm(x) @ head.T)


def test_targets_bring_the_mean_cross_entropy_along():
    model, ids, targets = small_model(), ids_of(2, 5), ids_of(2, 5, seed=1)
    logits, loss = model(ids, targets)
    assert torch.equal(logits, model(ids))
    log_probs = logits.double().log_softmax(dim=-1)
    by_hand = -sum(log_probs[b, t, targets[b, t]] for b in range(2) for t in range(5)) / 10
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize("mode", ["eval", "training"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("tokens", [1, 5, 8])
def test_fused_and_written_out_models_agree(mode, tied, tokens):
    models = [small_model(fused=fused, tied=tied, drop_rate=0.3 * (mode == "eval")) for fused in (False, True)]
    ids, targets = ids_of(3, tokens), ids_of(3, tokens, seed=1)
    results = [model.train(mode == "training")(ids, targets) for model in models]
    assert_close(*results, atol=1e-5, rtol=1e-5)
    for _, loss in results:
        loss.backward()
    assert_close(*(gradients(model) for model in models), atol=1e-6, rtol=1e-4)


@both_ways
def test_no_token_sees_a_later_one(fused):
    model = small_model(fused=fused).eval()
    assert is_causal(model.trf_blocks, d_in=12, context_length=8)
    ids = ids_of(1, 8)
    before = model(ids)
    for t in range(8):
        changed = ids.clone()
        changed[0, t] = (ids[0, t] + 1) % 11
        moved = (model(changed) - before).abs().amax(dim=-1)[0]  # (8,)
        assert moved[:t].tolist() == [0] * t and moved[t:].min() > 1e-3


def test_rows_of_a_batch_do_not_mix():
    model, ids = small_model(), ids_of(4, 6)
    assert_close(model(ids), torch.cat([model(row[None]) for row in ids]), atol=1e-5, rtol=1e-5)


def test_equal_tokens_differ_by_their_position():
    logits = small_model()(torch.full((1, 8), 3))
    assert torch.pdist(logits[0]).min() > 0.1


@both_ways
@pytest.mark.parametrize("pieces", [(1,) * 8, (3, 1, 1, 2), (5, 3), (8,)], ids=str)
def test_caches_give_the_logits_of_the_full_pass(pieces, fused):
    model, ids = small_model(fused=fused).eval(), ids_of(2, sum(pieces))
    caches = model.new_caches(2, sum(pieces))
    with torch.no_grad():
        logits = torch.cat([model(piece, caches=caches) for piece in ids.split(pieces, dim=1)], dim=1)
        assert_close(logits, model(ids), atol=1e-5, rtol=1e-5)


def test_caches_fit_the_model():
    caches = small_model().to(torch.float64).new_caches(batch_size=5)
    assert len(caches) == 2 and len({cache.keys.data_ptr() for cache in caches}) == 2
    assert all(cache.keys.shape == cache.values.shape == (5, 3, 8, 4) for cache in caches)
    assert all(cache.keys.dtype == torch.float64 and cache.length == 0 for cache in caches)
    assert small_model().new_caches(1, max_length=3)[0].keys.shape[2] == 3


def test_too_long_sequences_are_refused_with_both_lengths():
    model = small_model().eval()
    with pytest.raises(ValueError, match="9 tokens, but context_length is 8"):
        model(ids_of(1, 9))
    caches = model.new_caches(1)
    with torch.no_grad():
        model(ids_of(1, 6), caches=caches)
        with pytest.raises(ValueError, match="9 tokens, but context_length is 8"):
            model(ids_of(1, 3), caches=caches)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_bias_of_the_projections_is_optional(qkv_bias):
    model = GPTModel(GPTConfig(**SMALL, qkv_bias=qkv_bias))
    projections = [W for block in model.trf_blocks for W in (block.att.W_query, block.att.W_key, block.att.W_value)]
    assert all((W.bias is not None) is qkv_bias for W in projections)


# Sizes and first weights


@pytest.mark.parametrize("size", ["vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_one_are_refused_by_name(size, value):
    with pytest.raises(ValueError, match=f"{size} must be at least 1, got {value}$"):
        GPTConfig(**SMALL | {size: value})


def test_heads_that_cannot_share_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"emb_dim=12, n_heads=5$"):
        GPTConfig(**SMALL | {"n_heads": 5})


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_presets_have_the_published_number_of_parameters(name, count):
    with torch.device("meta"):  # shapes without numbers
        model = GPTModel(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_first_weights_are_those_of_gpt2(std):
    torch.manual_seed(0)
    layers = 3
    model = GPTModel(GPTConfig(200, context_length=64, emb_dim=64, n_heads=4, n_layers=layers, init_std=std))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert parameter.unique().tolist() == [1.0 if name.endswith("scale") else 0.0], name
        else:
            to_the_stream = name.endswith(("out_proj.weight", "ff.layers.2.weight"))
            expected = std / math.sqrt(2 * layers) if to_the_stream else std
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert parameter.mean().abs() < 0.1 * expected, name
            assert parameter.abs().max() > 2.5 * expected, f"{name} is not normal"


def test_without_a_spread_the_first_weights_are_those_of_pytorch():
    torch.manual_seed(0)
    model = GPTModel(GPTConfig(200, context_length=64, emb_dim=64, n_heads=4, n_layers=1, init_std=None))
    for embedding in (model.tok_emb, model.pos_emb):
        assert embedding.weight.std().item() == pytest.approx(1, rel=0.05)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 7
    for linear in linears:
        bound = linear.in_features**-0.5
        numbers = [linear.weight] if linear.bias is None else [linear.weight, linear.bias]
        for parameter in numbers:
            assert 0.9 * bound < parameter.abs().max() <= bound
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_loss_of_a_fresh_model_is_that_of_guessing():
    torch.manual_seed(0)
    cfg = GPTConfig(65, context_length=32, emb_dim=48, n_heads=4, n_layers=4, drop_rate=0.0)
    _, loss = GPTModel(cfg)(ids_of(4, 32, 65), ids_of(4, 32, 65, seed=1))
    assert loss.item() == pytest.approx(math.log(65), abs=0.05)


def test_tied_head_is_the_embedding_and_an_untied_one_is_not():
    tied, untied = GPTModel(GPTConfig(**SMALL, tied=True)), GPTModel(GPTConfig(**SMALL))
    assert tied.out_head.weight is tied.tok_emb.weight
    assert untied.out_head.weight.data_ptr() != untied.tok_emb.weight.data_ptr()
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == 11 * 12
    copied = copy.deepcopy(tied)
    assert copied.out_head.weight is copied.tok_emb.weight is not tied.tok_emb.weight


# Hugging Face's layout, without transformers


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unprefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("rename", [dict, unprefixed], ids=["prefixed", "unprefixed"])
def test_weights_survive_the_way_out_and_back(tied, rename):
    source, model = small_model(seed=1, tied=tied), small_model(seed=2, tied=tied)
    assert load_gpt2_weights(model, rename(gpt2_state_dict(source))) is None
    assert_close(model.state_dict(), source.state_dict(), atol=0, rtol=0)
    assert (model.out_head.weight is model.tok_emb.weight) is tied


def test_weights_are_copied_and_not_shared():
    source, model = small_model(seed=1), small_model(seed=2)
    weights = gpt2_state_dict(source)
    load_gpt2_weights(model, weights)
    before = [snapshot(source), snapshot(model)]
    for tensor in weights.values():
        tensor.fill_(7)
    assert_close([snapshot(source), snapshot(model)], before, atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_a_head_the_embedding_serves():
    source, model = small_model(seed=1), small_model(seed=2)
    weights = gpt2_state_dict(source)
    del weights["lm_head.weight"]
    load_gpt2_weights(model, weights)
    assert torch.equal(model.out_head.weight, source.tok_emb.weight)
    assert model.out_head.weight.data_ptr() != model.tok_emb.weight.data_ptr()


def test_masks_of_old_versions_are_ignored_and_half_precision_is_widened():
    source, model = small_model(seed=1), small_model(seed=2)
    weights = {name: tensor.half() for name, tensor in gpt2_state_dict(source).items()}
    for layer in range(2):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8).tril()
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    load_gpt2_weights(model, weights)
    expected = {name: tensor.half().float() for name, tensor in source.named_parameters()}
    assert_close(dict(model.named_parameters()), expected, atol=0, rtol=0)


def drop(name: str) -> Callable[[dict], object]:
    return lambda weights: weights.pop(name)


def put(name: str, *shape: int) -> Callable[[dict], object]:
    return lambda weights: weights.update({name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("transformer.h.1.mlp.c_fc.bias"), "don't fit: h.1.mlp.c_fc.bias is missing"),
        (drop("transformer.ln_f.weight"), "don't fit: ln_f.weight is missing"),
        (drop("transformer.wte.weight"), "don't fit: wte.weight is missing"),
        (put("transformer.h.0.attn.rotary", 4), "don't fit: h.0.attn.rotary has no place in this model"),
        (put("transformer.h.2.ln_1.weight", 12), "don't fit: h.2.ln_1.weight has no place in this model"),
        (put("score.weight", 2, 12), "don't fit: score.weight has no place in this model"),
        (
            put("transformer.h.0.attn.c_attn.weight", 36, 12),
            "h.0.attn.c_attn.weight has shape (36, 12), the model needs (12, 36)",
        ),
        (put("transformer.h.1.ln_2.bias", 1), "h.1.ln_2.bias has shape (1,), the model needs (12,)"),
        (put("transformer.wpe.weight", 9, 12), "wpe.weight has shape (9, 12), the model needs (8, 12)"),
        (put("lm_head.weight", 12, 11), "lm_head.weight has shape (12, 11), the model needs (11, 12)"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change, message):
    model, weights = small_model(seed=2), gpt2_state_dict(small_model(seed=1))
    change(weights)
    before, given = snapshot(model), set(weights)
    with pytest.raises(ValueError) as caught:
        load_gpt2_weights(model, weights)
    assert message in str(caught.value)
    assert ";" not in str(caught.value), "a problem is reported that there is not"
    assert_close(snapshot(model), before, atol=0, rtol=0)
    assert set(weights) == given, "the given weights were changed"


@pytest.mark.parametrize(("ours", "theirs", "problem"), [(1, 3, "has no place"), (3, 1, "is missing")])
def test_other_number_of_layers_is_refused_without_a_flood(ours, theirs, problem):
    model = small_model(n_layers=ours)
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"h\.1\.\S+ {problem}.*; and 19 more$"):
        load_gpt2_weights(model, gpt2_state_dict(small_model(seed=1, n_layers=theirs)))
    assert_close(snapshot(model), before, atol=0, rtol=0)


def test_own_head_does_not_fit_a_tied_model():
    model, weights = small_model(tied=True), gpt2_state_dict(small_model(seed=1))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"lm_head.weight differs from wte.weight, but .* tied"):
        load_gpt2_weights(model, weights)
    assert_close(snapshot(model), before, atol=0, rtol=0)


def test_model_without_bias_is_refused():
    model, source = small_model(qkv_bias=False), small_model()
    for attempt in (lambda: load_gpt2_weights(model, gpt2_state_dict(source)), lambda: gpt2_state_dict(model)):
        with pytest.raises(ValueError, match="qkv_bias=True"):
            attempt()


# Against transformers

#        vocabulary, context, channels, heads, layers
SHAPES = {
    "one-head": (97, 16, 24, 1, 2),
    "odd-vocabulary": (101, 12, 20, 4, 2),
    "long-context": (40, 600, 16, 2, 1),
    "many-layers": (50, 24, 32, 4, 6),
    "one-channel-per-head": (30, 10, 12, 12, 1),
    "all-square": (16, 16, 16, 2, 2),  # a matrix that lies on its side has the right shape
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
tied_or_not = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    """Imported where it is used: that takes 5 seconds."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def build_theirs(transformers: ModuleType, shape: tuple[int, ...], tied: bool, **options: object) -> nn.Module:
    names = ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")
    sizes = dict(zip(names, shape, strict=True))
    cfg = transformers.GPT2Config(
        **sizes, tie_word_embeddings=tied, initializer_range=0.2, bos_token_id=0, eos_token_id=0, **options
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(cfg).eval()
    scatter(theirs)
    return theirs


def build_ours(shape: tuple[int, ...], tied: bool, **options: object) -> GPTModel:
    model = GPTModel(GPTConfig(*shape, tied=tied, drop_rate=0.0, **options)).eval()
    scatter(model, seed=5)
    return model


def tokens_for(shape: tuple[int, ...], rows: int = 2) -> Tensor:
    return ids_of(rows, shape[1], shape[0])


@torch.no_grad()
def assert_same_logits(ours: GPTModel, theirs: nn.Module, ids: Tensor) -> None:
    for part in (ids, ids[:, : ids.shape[1] // 2], ids[:, :1]):
        expected = theirs(part).logits
        assert expected.std() > 0.3, "logits this small prove little"
        assert_close(ours(part), expected, atol=1e-5, rtol=0)


@tied_or_not
@every_shape
def test_weights_saved_by_transformers_give_its_logits(shape, tied, transformers, tmp_path):
    from safetensors.torch import load_file

    theirs = build_theirs(transformers, shape, tied)
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(str(tmp_path))
    cfg = ours.cfg
    assert (cfg.vocab_size, cfg.context_length, cfg.emb_dim, cfg.n_heads, cfg.n_layers) == shape
    assert (cfg.tied, cfg.fused, ours.training) == (tied, True, False)
    assert (ours.out_head.weight is ours.tok_emb.weight) is tied
    assert_same_logits(ours, theirs, tokens_for(shape))
    weights = load_file(tmp_path / "model.safetensors")
    for loaded in (weights, unprefixed(weights)):
        ours = build_ours(shape, tied, fused=False)
        load_gpt2_weights(ours, loaded)
        assert_same_logits(ours, theirs, tokens_for(shape))


@tied_or_not
@every_shape
def test_transformers_takes_our_weights_and_gives_our_logits(shape, tied, transformers):
    ours, theirs = build_ours(shape, tied), build_theirs(transformers, shape, tied)
    stored = gpt2_state_dict(ours)
    assert set(stored) == set(theirs.state_dict())
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in stored.values())
    theirs.load_state_dict(stored, strict=True)
    assert_same_logits(ours, theirs, tokens_for(shape))


@tied_or_not
@both_ways
def test_gradients_are_those_of_transformers(fused, tied, transformers):
    shape = SHAPES["many-layers"]
    ours, theirs = build_ours(shape, tied, fused=fused).double(), build_theirs(transformers, shape, tied).double()
    theirs.load_state_dict(gpt2_state_dict(ours))
    ids = tokens_for(shape, rows=3)
    x, y = ids[:, :-1], ids[:, 1:]
    ours.train()(x, y)[1].backward()
    F.cross_entropy(theirs(x).logits.flatten(0, 1), y.flatten()).backward()
    expected = {name: tensor.grad for name, tensor in theirs.named_parameters(remove_duplicate=False)}
    expected = unprefixed(expected)
    compared = 0
    for name, parameters, transposed in gpt2_layout(ours):
        gradient = torch.cat([parameter.grad for parameter in parameters])
        assert gradient.abs().max() > 1e-6, name
        assert_close(gradient.t() if transposed else gradient, expected[name], atol=1e-10, rtol=1e-8)
        compared += 1
    assert compared == len(expected) == 5 + 12 * 6


def test_losses_are_those_of_transformers(transformers):
    shape = SHAPES["odd-vocabulary"]
    theirs, ours = build_theirs(transformers, shape, True), build_ours(shape, True)
    load_gpt2_weights(ours, theirs.state_dict())
    ids = tokens_for(shape)
    _, loss = ours(ids[:, :-1], ids[:, 1:])
    assert_close(loss, theirs(ids, labels=ids).loss, atol=1e-5, rtol=0)


# Folders with published weights

TINY = (11, 8, 12, 3, 2)


@pytest.fixture
def folder(transformers, tmp_path) -> Path:
    build_theirs(transformers, TINY, tied=True).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}), encoding="utf-8")


def test_written_out_model_can_be_asked_for(folder):
    model = from_pretrained(str(folder), fused=False)
    assert not model.cfg.fused and not model.trf_blocks[0].att.fused
    assert_close(model(ids_of(1, 8)), from_pretrained(str(folder))(ids_of(1, 8)), atol=1e-5, rtol=0)


def test_configuration_of_the_first_release_means_a_tied_head(folder):
    # It says less than today's.
    rewrite(folder, tie_word_embeddings=..., scale_attn_weights=..., add_cross_attention=..., n_inner=...)
    assert from_pretrained(str(folder)).cfg.tied


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "is a model of type 'llama', expected 'gpt2'"),
        ({"model_type": ...}, "is a model of type None, expected 'gpt2'"),
        ({"activation_function": "relu"}, "activation_function is 'relu', expected 'gelu_new'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, expected 1e-05"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False, expected True"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, expected False"),
        ({"n_layer": 1}, r"h.1.\S+ has no place in this model"),
        ({"n_layer": 3}, "h.2.attn.c_attn.weight is missing"),
        ({"n_head": 5}, "emb_dim=12, n_heads=5"),
        ({"vocab_size": 12}, r"wte.weight has shape \(11, 12\), the model needs \(12, 12\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configuration_of_another_model_is_refused(changes, message, folder):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        from_pretrained(str(folder))


def test_wider_feed_forward_is_refused(transformers, tmp_path):
    build_theirs(transformers, TINY, True, n_inner=20).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"h.0.mlp.c_fc.weight has shape \(12, 20\), the model needs \(12, 48\)"):
        from_pretrained(str(tmp_path))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("length", [0, 40])
def test_file_that_was_cut_off_is_named(file, length, folder):
    path = folder / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RuntimeError, match=rf"{file} is damaged .*; download it again$"):
        from_pretrained(str(folder))
