"""Stress cases for chapter 6."""

import dataclasses

import torch

from stress.chapter04 import outputs, shapes_of, with_random_parameters
from stress.draws import outcome, randn, size
from utils.gpt import GPTModel, gpt2_state_dict
from utils.gpt_config import GPTConfig


def drawn_config(g, **more):
    n_heads = size(g, 1, 4)
    drawn = {
        "vocab_size": size(g, 1, 9),
        "context_length": size(g),
        "emb_dim": n_heads * size(g, 1, 4),
        "n_heads": n_heads,
        "n_layers": size(g, 1, 4),
        "drop_rate": 0.0,
        "qkv_bias": bool(size(g, 0, 2)),
        "init_std": None,
    }
    return GPTConfig(**drawn | more)


def stress_6_1(f, g):
    x = randn(g, size(g), size(g), size(g)) * 10.0 ** -size(g, 0, 4)
    fresh = f(x.shape[-1]).to(x.dtype)(x)
    module = with_random_parameters(f(x.shape[-1]), g, x)
    return [fresh, shapes_of(module), outputs(module, x), module(x[0]), module(x[0, 0]), module(x[None])]


def stress_6_2(f, g):
    x = (3 * randn(g, size(g), size(g))).requires_grad_()
    result = f(x)
    large = f(x.detach() * 1e4)
    return [result, torch.autograd.grad(result.square().sum(), x), large, f(x.detach().double()) * 1e3]


def stress_6_3(f, g):
    cfg = drawn_config(g, drop_rate=(0.0, 0.5)[size(g, 0, 2)])
    x = 2 * randn(g, size(g), size(g), cfg.emb_dim)
    module = with_random_parameters(f(cfg), g, x)
    return [shapes_of(module), outputs(module, x)]


def branch_values(module, cfg, g):
    """What training mode does to constant branches, as counts of 0 and of 1/(1-p) and of anything else."""
    x = torch.zeros(20, cfg.context_length, cfg.emb_dim)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(1.0 if name == "att.out_proj.bias" else 7.0 if name == "ff.layers.2.bias" else 0.0)
    torch.manual_seed(size(g, 0, 1000))
    change = module.train()(x) * (1 - cfg.drop_rate)
    return [bool((change - number).abs().lt(1e-3).any()) for number in (0, 1, 7, 8)] + [
        bool(torch.isin(change.round().int(), torch.tensor([0, 1, 7, 8])).all())
    ]


def stress_6_4(f, g):
    cfg = drawn_config(g)
    x = randn(g, size(g), cfg.context_length, cfg.emb_dim)
    module = with_random_parameters(f(cfg), g, x)
    longer = torch.zeros(1, cfg.context_length + 1, cfg.emb_dim, dtype=x.dtype)
    dropping = dataclasses.replace(cfg, drop_rate=0.5)
    return [
        shapes_of(module),
        outputs(module, x),
        outcome(lambda: module(longer)),
        module(x[:, :1]),
        branch_values(f(dropping), dropping, g),
    ]


def stress_6_5(f, g):
    cfg = drawn_config(g)
    idx = torch.randint(cfg.vocab_size, (size(g), cfg.context_length), generator=g)
    module = with_random_parameters(f(cfg), g, randn(g, 1))
    longer = torch.zeros(1, cfg.context_length + 1, dtype=torch.long)
    logits = module.eval()(idx)
    gradients = torch.autograd.grad(logits.square().sum(), list(module.parameters()))
    dropping = with_random_parameters(f(dataclasses.replace(cfg, drop_rate=0.5, emb_dim=8, n_heads=1)), g, randn(g, 1))
    dropped = bool((dropping.train()(idx) != dropping.eval()(idx)).any()) or cfg.vocab_size == 1
    return [
        shapes_of(module),
        logits,
        gradients,
        module.train()(idx[:1]),
        module(idx[:, :1]),
        outcome(lambda: module(longer)),
        dropped,
    ]


def stress_6_6(f, g):
    cfg = drawn_config(g, vocab_size=size(g, 1, 60000), context_length=size(g, 1, 2000), n_layers=size(g, 1, 50))
    return [f(cfg, tied) for tied in (True, False)]


def stress_6_7(f, g):
    cfg = drawn_config(g, qkv_bias=True, emb_dim=4, n_heads=2)
    source = with_random_parameters(GPTModel(cfg), g, randn(g, 1).float())
    given = gpt2_state_dict(source)
    kind = size(g, 0, 5)
    names = list(given)
    one = names[size(g, 0, len(names))]
    if kind == 1:
        given = {name.removeprefix("transformer."): tensor for name, tensor in given.items() if "lm_head" not in name}
        given["h.0.attn.bias"] = torch.ones(1, 1, 3, 3)
    elif kind == 2:
        del given[one]
    elif kind == 3:
        given[one] = given[one].flatten()[:3] if given[one].dim() > 1 else given[one][:1]
    elif kind == 4:
        given[f"transformer.h.{cfg.n_layers}.ln_1.weight"] = torch.ones(4)
    model = with_random_parameters(GPTModel(cfg), g, randn(g, 1).float())
    said = outcome(lambda: f(model, given))
    return ["refused" if said == "refused" else said is None, [parameter.detach() for parameter in model.parameters()]]
