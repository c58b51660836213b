"""What a model costs, by formula, against models that are really built: parameters, cache, arithmetic."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.costs import count_parameters, flops_per_token, kv_cache_bytes
from utils.gpt import GPTModel
from utils.gpt_config import PRESETS, GPTConfig

SMALL = [
    GPTConfig(vocab_size=11, context_length=5, emb_dim=6, n_heads=3, n_layers=2),
    GPTConfig(vocab_size=65, context_length=8, emb_dim=8, n_heads=2, n_layers=1, qkv_bias=False),
    GPTConfig(vocab_size=7, context_length=9, emb_dim=4, n_heads=1, n_layers=3, drop_rate=0.0),
]
every_small = pytest.mark.parametrize("cfg", SMALL, ids=lambda cfg: f"{cfg.n_layers} layers")


# Parameters -----------------------------------------------------------------------------------------


def number_of_parameters(cfg: GPTConfig) -> int:
    """Of a model without memory: a parameter that is used twice counts once."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPTModel(cfg).parameters())


@every_small
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_the_model(cfg, tied):
    assert count_parameters(cfg, tied) == number_of_parameters(dataclasses.replace(cfg, tied=tied))


@pytest.mark.parametrize(
    ("name", "published"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_parameters_of_the_published_models(name, published):
    assert count_parameters(PRESETS[name], tied=True) == number_of_parameters(PRESETS[name]) == published


def test_there_is_a_number_for_every_published_model():
    assert len(PRESETS) == 4


@every_small
def test_a_tied_head_saves_its_weights(cfg):
    saved = count_parameters(cfg, tied=False) - count_parameters(cfg, tied=True)
    assert saved == cfg.vocab_size * cfg.emb_dim


# The cache ------------------------------------------------------------------------------------------


@every_small
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cache_is_as_large_as_the_tensors_in_it(cfg, dtype, batch_size):
    model = GPTModel(cfg).to(dtype).eval()
    caches = model.new_caches(batch_size)
    with torch.no_grad():
        model(torch.zeros(batch_size, 4, dtype=torch.long), caches=caches)
    whole = sum(t.nelement() * t.element_size() for cache in caches for t in (cache.keys, cache.values))
    assert kv_cache_bytes(cfg, batch_size, cfg.context_length, dtype.itemsize) == whole
    held = [t[:, :, : cache.length] for cache in caches for t in (cache.keys, cache.values)]
    assert kv_cache_bytes(cfg, batch_size, 4, dtype.itemsize) == sum(t.nelement() * t.element_size() for t in held)


def test_cache_of_gpt2():
    assert kv_cache_bytes(PRESETS["gpt2"], batch_size=1, length=1024, bytes_per_value=4) == 75_497_472
    assert kv_cache_bytes(PRESETS["gpt2-xl"], batch_size=8, length=1000, bytes_per_value=2) == 2_457_600_000


@every_small
def test_longer_than_the_context_is_refused_with_both_lengths(cfg):
    length = cfg.context_length + 1
    with pytest.raises(ValueError, match=rf"\b{length}\b.*\b{cfg.context_length}\b"):
        kv_cache_bytes(cfg, 1, length, 4)


# Arithmetic -----------------------------------------------------------------------------------------


@every_small
@pytest.mark.parametrize("batch_size", [1, 2])
def test_flops_are_those_that_pytorch_counts(cfg, batch_size):
    """Forward and backward of the written-out model, over a whole context."""
    model = GPTModel(dataclasses.replace(cfg, fused=False))
    ids = torch.zeros(batch_size, cfg.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counted:
        model(ids).sum().backward()
    assert counted.get_total_flops() == ids.numel() * flops_per_token(cfg)


def test_flops_do_not_depend_on_what_multiplies_nothing():
    cfg = SMALL[0]
    for other in ({"n_heads": 2}, {"qkv_bias": False}, {"drop_rate": 0.5}, {"tied": True}, {"fused": False}):
        assert flops_per_token(dataclasses.replace(cfg, **other)) == flops_per_token(cfg)


def test_flops_of_gpt2():
    assert flops_per_token(PRESETS["gpt2"]) == 6 * 123_532_032 + 12 * 12 * 768 * 1024
