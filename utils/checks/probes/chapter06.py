"""How to try the answers of chapter 6.

Legend: B batch, T tokens, V vocabulary size, d emb_dim, H heads, L layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.checks.probes.modules import (
    built,
    loaded,
    normal_parameters,
    observe_after_shorter,
    observe_manners,
    observe_manners_in_both_modes,
    observe_output,
    observe_refusal,
    observe_structure,
)
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    RandomStates,
    attempt,
    identical,
    in_both_precisions,
    in_precision,
    normal,
    plainly,
    to_data,
    watched,
)
from utils.gpt_config import PRESETS, GPTConfig

Fields = dict[str, Any]  # of a GPTConfig: plain data, unlike the object itself
Shapes = dict[str, tuple[int, ...]]  # of parameters, by name
SCALE = 0.6  # of the weights: softmax neither flat nor one-hot, so that mistakes before it show


def in_turns(cases: list[Case]) -> list[Case]:
    """Every other case in float64: modules take too long to try each in both precisions."""
    return [in_precision(case, (torch.float32, torch.float64)[i % 2]) for i, case in enumerate(cases)]


def drawn_parameters(generator: torch.Generator, shapes: Shapes) -> dict[str, Tensor]:
    return {name: SCALE * parameter for name, parameter in normal_parameters(generator, shapes).items()}


def observe_names(answer: Any, case: Case) -> Observation:
    """As ``observe_structure``, but any module may hold the parameters: only their names are given."""
    seen = observe_structure(answer, case)
    del seen["linear_layers"]
    return seen


# 6.1 ------------------------------------------------------------------------------------------------


def norm_case(generator: torch.Generator, x: Tensor, **more: Any) -> Case:
    d = x.shape[-1]
    parameters = normal_parameters(generator, {"scale": (d,), "shift": (d,)})
    return {"arguments": {"emb_dim": d}, "parameters": parameters, "x": x, **more}


def ordinary_rows(generator: torch.Generator) -> list[Case]:
    return [
        norm_case(generator, torch.tensor([[1.0, 2.0, 3.0, 6.0], [-1.0, 0.0, 5.0, 2.0]])),
        norm_case(generator, 2 * normal(generator, 2, 5, 3) + 1),
        norm_case(generator, normal(generator, 3, 3, 3)),  # B = T = d: all wrong dimensions have the right shape
        norm_case(generator, 3 * normal(generator, 4, 2, 6) - 2),
    ]


def nearly_constant_rows(generator: torch.Generator) -> list[Case]:
    """Rows whose variance is about as small as epsilon, or zero."""
    scales = torch.tensor([1e-3, 3e-3, 1e-2, 0.0])[:, None]
    cases = [
        norm_case(generator, 2e-3 * normal(generator, 2, 3, 5)),
        norm_case(generator, 1e-2 * normal(generator, 3, 4, 2)),
        norm_case(generator, scales * normal(generator, 4, 6)),
        norm_case(generator, 0.5 * torch.ones(2, 3, 4)),
    ]
    return in_both_precisions(cases)


def odd_rows(generator: torch.Generator) -> list[Case]:
    cases = [
        norm_case(generator, normal(generator, 7)),
        norm_case(generator, normal(generator, 1, 1, 5), training=True),
        norm_case(generator, normal(generator, 3, 1)),
        norm_case(generator, 2 * normal(generator, 2, 3, 4, 5), strided=True),
        norm_case(generator, normal(generator, 5, 4), strided=True),
        norm_case(generator, normal(generator, 4, 3, 2) + 3, strided=True, training=True),
    ]
    return in_both_precisions(cases)


def two_norms(generator: torch.Generator) -> list[Case]:
    return in_turns([norm_case(generator, normal(generator, 2, 4, 3)), norm_case(generator, normal(generator, 3, 5))])


def observe_norm_manners(answer: Any, case: Case) -> Observation:
    """Parameters, what a fresh module does with rows of any mean and spread, and the manners of one call."""
    x = 3 * case["x"].float() + 2
    fresh = {"of_a_new_module": attempt(lambda: built(answer, case)(x))}
    return observe_names(answer, case) | fresh | observe_manners(answer, case)


# 6.2 ------------------------------------------------------------------------------------------------


def moderate_numbers(generator: torch.Generator) -> list[Case]:
    """Between about -4 and 4, where the forms of GELU differ."""
    cases = [
        {"x": torch.tensor([-2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5])},
        {"x": torch.linspace(-4, 4, 40).reshape(5, 8)},
        {"x": 1.5 * normal(generator, 2, 5, 4)},
        {"x": 2 * normal(generator, 6)},
    ]
    return in_both_precisions(cases)


def odd_numbers(generator: torch.Generator) -> list[Case]:
    cases = [
        {"x": torch.tensor([-1e4, -3e3, -100.0, -30.0, 30.0, 100.0, 1e4])},
        {"x": 1e4 * normal(generator, 3, 2, 4)},
        {"x": torch.tensor([[-1e20, 1e20, 0.0], [-1e10, 1e10, 1.0]])},  # whose cubes overflow in float32
        {"x": normal(generator, 1)},
        {"x": normal(generator, 2, 1, 3, 5), "strided": True},
        {"x": 4 * normal(generator, 5, 2), "strided": True},
    ]
    return in_both_precisions(cases)


def two_tensors(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"x": 1.5 * normal(generator, 2, 3, 4)}, {"x": normal(generator, 1, 5)}])


# Modules that are built from a configuration --------------------------------------------------------


def fields_for(
    emb_dim: int = 6,
    n_heads: int = 2,
    context_length: int = 6,
    qkv_bias: bool = True,
    vocab_size: int = 7,
    n_layers: int = 1,
    drop_rate: float = 0.0,
) -> Fields:
    return {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "emb_dim": emb_dim,
        "n_heads": n_heads,
        "n_layers": n_layers,
        "drop_rate": drop_rate,
        "qkv_bias": qkv_bias,
    }


def from_config(observe: Callable[..., Observation], **options: Any) -> Callable[[Any, Case], Observation]:
    """An observation whose case holds the configuration's fields, for a class that takes the configuration."""

    def observed(answer: Any, case: Case) -> Observation:
        def class_of_fields(**fields: Any) -> Any:
            return answer(GPTConfig(**fields, init_std=None))  # initial values are free; PyTorch's own take less time

        return observe(class_of_fields, case | {"by_name": True}, **options)

    return observed


def feed_forward_shapes(fields: Fields, prefix: str = "") -> Shapes:
    d = fields["emb_dim"]
    return {
        f"{prefix}layers.0.weight": (4 * d, d),
        f"{prefix}layers.0.bias": (4 * d,),
        f"{prefix}layers.2.weight": (d, 4 * d),
        f"{prefix}layers.2.bias": (d,),
    }


def norm_shapes(fields: Fields, prefix: str) -> Shapes:
    return {f"{prefix}scale": (fields["emb_dim"],), f"{prefix}shift": (fields["emb_dim"],)}


def block_shapes(fields: Fields, prefix: str = "") -> Shapes:
    d = fields["emb_dim"]
    projections = [f"{prefix}att.{name}" for name in ("W_query", "W_key", "W_value", "out_proj")]
    with_bias = projections if fields["qkv_bias"] else projections[3:]
    return {
        **{f"{name}.weight": (d, d) for name in projections},
        **{f"{name}.bias": (d,) for name in with_bias},
        **feed_forward_shapes(fields, f"{prefix}ff."),
        **norm_shapes(fields, f"{prefix}norm1."),
        **norm_shapes(fields, f"{prefix}norm2."),
    }


def model_shapes(fields: Fields) -> Shapes:
    d, vocab_size = fields["emb_dim"], fields["vocab_size"]
    shapes: Shapes = {"tok_emb.weight": (vocab_size, d), "pos_emb.weight": (fields["context_length"], d)}
    for layer in range(fields["n_layers"]):
        shapes |= block_shapes(fields, f"trf_blocks.{layer}.")
    return shapes | norm_shapes(fields, "final_norm.") | {"out_head.weight": (vocab_size, d)}


def config_case(
    generator: torch.Generator,
    shapes_of: Callable[[Fields], Shapes],
    batch_size: int,
    num_tokens: int,
    fields: Fields,
    **more: Any,
) -> Case:
    """A case as ``probes.modules`` describes it; the input is (B, T, d)."""
    return {
        "arguments": fields,
        "parameters": drawn_parameters(generator, shapes_of(fields)),
        "x": normal(generator, batch_size, num_tokens, fields["emb_dim"]),
        **more,
    }


# 6.3 ------------------------------------------------------------------------------------------------


def feed_forwards(generator: torch.Generator) -> list[Case]:
    cases = [
        config_case(generator, feed_forward_shapes, 2, 4, fields_for(emb_dim=6, n_heads=2)),
        config_case(generator, feed_forward_shapes, 3, 5, fields_for(emb_dim=4, n_heads=1, qkv_bias=False)),
        config_case(generator, feed_forward_shapes, 3, 3, fields_for(emb_dim=3, n_heads=3, vocab_size=3)),
        config_case(generator, feed_forward_shapes, 2, 4, fields_for(emb_dim=5, n_heads=5, n_layers=2)),
    ]
    return in_turns(cases)


def odd_feed_forwards(generator: torch.Generator) -> list[Case]:
    """Also in training mode: the feed-forward itself drops nothing, whatever ``drop_rate`` is."""
    shapes = feed_forward_shapes
    cases = [
        config_case(generator, shapes, 1, 1, fields_for(emb_dim=7, n_heads=7)),
        config_case(generator, shapes, 4, 3, fields_for(emb_dim=2, drop_rate=0.5), training=True),
        config_case(generator, shapes, 2, 5, fields_for(emb_dim=1, n_heads=1, drop_rate=0.3), training=True),
        config_case(generator, shapes, 3, 6, fields_for(emb_dim=8, vocab_size=5), strided=True),
        config_case(generator, shapes, 2, 4, fields_for(emb_dim=3, n_heads=3, drop_rate=0.9), strided=True),
    ]
    return in_turns(cases)


def two_feed_forwards(generator: torch.Generator) -> list[Case]:
    cases = [
        config_case(generator, feed_forward_shapes, 2, 4, fields_for(emb_dim=3, n_heads=1)),
        config_case(generator, feed_forward_shapes, 1, 3, fields_for(emb_dim=4, qkv_bias=False)),
    ]
    return in_turns(cases)


def observe_names_and_manners(answer: Any, case: Case) -> Observation:
    return observe_names(answer, case) | observe_manners(answer, case)


# 6.4 ------------------------------------------------------------------------------------------------


def blocks(generator: torch.Generator) -> list[Case]:
    return [
        config_case(generator, block_shapes, 2, 4, fields_for(emb_dim=6, n_heads=3)),
        config_case(generator, block_shapes, 3, 5, fields_for(emb_dim=4, n_heads=2, context_length=5)),
        config_case(generator, block_shapes, 3, 3, fields_for(emb_dim=3, n_heads=3, context_length=3)),
    ]


def odd_blocks(generator: torch.Generator) -> list[Case]:
    cases = [
        config_case(generator, block_shapes, 1, 5, fields_for(emb_dim=8, n_heads=4, qkv_bias=False), strided=True),
        config_case(generator, block_shapes, 2, 1, fields_for(emb_dim=5, n_heads=1, context_length=1)),
        config_case(generator, block_shapes, 3, 9, fields_for(emb_dim=2, n_heads=1, context_length=9), training=True),
        config_case(generator, block_shapes, 1, 2, fields_for(emb_dim=5, n_heads=5, n_layers=3), strided=True),
        config_case(generator, block_shapes, 4, 6, fields_for(qkv_bias=False, vocab_size=5), training=True),
    ]
    return in_turns(cases)


def blocks_with_dropout(generator: torch.Generator) -> list[Case]:
    """Blocks whose output shows what was dropped; ``shows`` says what. In float64, so that rounding hides nothing.

    - "branches": each branch is a constant, so a number of it is there, scaled, or it is not.
    - "feed-forward": the branch of attention is zero, so the other is a fixed function of x.
    - "weights": all tokens are alike and the feed-forward is zero, so the values of a head are all alike, and its
      context is them times the number of weights that were kept.
    """
    sizes = [(0.4, 9, 3, 6, 3), (0.3, 10, 2, 8, 2), (0.4, 12, 4, 8, 2), (0.6, 50, 1, 8, 1)]
    cases = []
    for shows, (p, batch_size, num_tokens, d, n_heads) in zip(
        ("branches", "feed-forward", "weights", "weights"), sizes, strict=True
    ):
        fields = fields_for(emb_dim=d, n_heads=n_heads, context_length=num_tokens + 1, drop_rate=p)
        case = config_case(generator, block_shapes, batch_size, num_tokens, fields, shows=shows, calls=4)
        known = {"att.out_proj.weight": torch.zeros(d, d), "att.out_proj.bias": torch.zeros(d)}
        if shows == "branches":
            known["att.out_proj.bias"] = 1 + torch.rand(d, generator=generator)
            known["ff.layers.0.weight"] = torch.zeros(4 * d, d)
            known["ff.layers.0.bias"] = torch.full((4 * d,), 3.0)
            wide = 5 + torch.rand(d, 1, generator=generator)  # so that the four sums are far apart
            known["ff.layers.2.weight"] = (wide / (12 * d)).expand(d, 4 * d)
            known["ff.layers.2.bias"] = torch.zeros(d)
        if shows == "weights":
            known["att.out_proj.weight"] = torch.eye(d)
            known["ff.layers.2.weight"], known["ff.layers.2.bias"] = torch.zeros(d, 4 * d), torch.zeros(d)
            case["x"] = case["x"][:, :1].repeat(1, num_tokens, 1)
        case["parameters"] |= known
        cases.append(in_precision(case, torch.float64))
    return cases


def blocks_too_short(generator: torch.Generator) -> list[Case]:
    """More tokens than ``context_length``; numbers of tokens that occur nowhere else in the case."""
    return [
        config_case(generator, block_shapes, 1, t, fields_for(emb_dim=8, context_length=length), names=[str(t)])
        for t, length in ((11, 10), (5, 3), (17, 1))
    ]


def two_blocks(generator: torch.Generator) -> list[Case]:
    cases = [
        config_case(generator, block_shapes, 2, 4, fields_for(emb_dim=6, n_heads=3)),
        config_case(generator, block_shapes, 1, 3, fields_for(emb_dim=4, qkv_bias=False)),
    ]
    return in_turns(cases)


def observe_in_training(answer: Any, case: Case) -> Observation:
    """The output in eval mode, many outputs in training mode, and one in eval mode again."""
    module = loaded(answer, case).eval()
    without = attempt(lambda: module(case["x"].clone()))
    module.train()
    trained = attempt(lambda: torch.stack([to_data(module(case["x"].clone())) for _ in range(case["calls"])]))
    module.eval()
    return {"without": without, "in_training": trained, "eval_again": attempt(lambda: module(case["x"].clone()))}


def observe_module_manners(answer: Any, case: Case) -> Observation:
    return observe_names(answer, case) | observe_manners_in_both_modes(answer, case, "drop_rate")


# 6.5 ------------------------------------------------------------------------------------------------


def drawn_ids(generator: torch.Generator, vocab_size: int, batch_size: int, num_tokens: int) -> Tensor:
    return torch.randint(vocab_size, (batch_size, num_tokens), generator=generator)


def model_case(generator: torch.Generator, batch_size: int, num_tokens: int, fields: Fields, **more: Any) -> Case:
    case = config_case(generator, model_shapes, batch_size, num_tokens, fields, **more)
    return case | {"x": drawn_ids(generator, fields["vocab_size"], batch_size, num_tokens)}


def models(generator: torch.Generator) -> list[Case]:
    return [
        model_case(generator, 2, 4, fields_for(emb_dim=6, n_heads=3, n_layers=2)),
        model_case(generator, 3, 5, fields_for(emb_dim=4, context_length=5, vocab_size=11, n_layers=3)),
        model_case(generator, 3, 3, fields_for(emb_dim=3, n_heads=3, context_length=3, vocab_size=3)),
    ]


def odd_models(generator: torch.Generator) -> list[Case]:
    cases = [
        model_case(generator, 1, 1, fields_for(emb_dim=4, qkv_bias=False, vocab_size=5)),
        model_case(generator, 4, 3, fields_for(emb_dim=5, n_heads=5, context_length=8), strided=True),
        model_case(generator, 2, 7, fields_for(emb_dim=2, n_heads=1, context_length=7, vocab_size=9), training=True),
        model_case(generator, 1, 6, fields_for(emb_dim=6, vocab_size=4, n_layers=2), training=True, strided=True),
        model_case(generator, 3, 1, fields_for(emb_dim=3, n_heads=1, context_length=1, vocab_size=1, qkv_bias=False)),
    ]
    return in_turns(cases)


def models_to_look_at(generator: torch.Generator) -> list[Case]:
    return [
        model_case(generator, 1, 2, fields)
        for fields in (
            fields_for(emb_dim=4, n_layers=2, context_length=9, vocab_size=5),
            fields_for(emb_dim=6, n_layers=1, context_length=2, vocab_size=11, qkv_bias=False),
        )
    ]


def models_with_dropout(generator: torch.Generator) -> list[Case]:
    """Models whose logits show what was dropped: the stream is what ``shows`` says, normalised, then the head.

    The numbers are about as small as the root of epsilon, so that the norm does not hide how they were scaled.
    All parameters that don't matter are zero.
    """
    cases = []
    for shows, p, batch_size, num_tokens, n_layers in (
        ("embeddings", 0.4, 10, 3, 1),
        ("branches", 0.3, 10, 3, 2),
        ("embeddings", 0.25, 15, 2, 2),
    ):
        d = 4
        fields = fields_for(
            emb_dim=d, vocab_size=6, context_length=num_tokens + 1, n_layers=n_layers, drop_rate=p, qkv_bias=True
        )
        case = model_case(generator, batch_size, num_tokens, fields, shows=shows, calls=5)
        parameters = case["parameters"]
        last = f"trf_blocks.{n_layers - 1}"
        for name in parameters:
            if name.endswith(("out_proj.weight", "out_proj.bias", "layers.2.weight", "layers.2.bias", ".shift")):
                parameters[name] = torch.zeros_like(parameters[name])
            elif "_emb." in name:
                parameters[name] = 5e-3 * parameters[name] * (shows == "embeddings")
        if shows == "branches":
            for name, size in (("att.out_proj", 2e-3), ("ff.layers.2", 8e-3)):
                parameters[f"{last}.{name}.bias"] = size * (1 + torch.rand(d, generator=generator))
        parameters["final_norm.scale"] = torch.ones(d)
        parameters["out_head.weight"] = torch.cat([torch.eye(d), torch.ones(1, d), torch.zeros(1, d)])  # (V, d)
        cases.append(in_precision(case, torch.float64))
    return cases


def models_too_short(generator: torch.Generator) -> list[Case]:
    return [
        model_case(generator, 2, t, fields_for(emb_dim=4, context_length=length, vocab_size=6), names=[str(t)])
        for t, length in ((11, 10), (17, 1))
    ]


def two_models(generator: torch.Generator) -> list[Case]:
    cases = [
        model_case(generator, 2, 4, fields_for(emb_dim=4, n_layers=2)),
        model_case(generator, 1, 3, fields_for(emb_dim=6, n_heads=3, context_length=3, qkv_bias=False)),
    ]
    return in_turns(cases)


# 6.6 ------------------------------------------------------------------------------------------------

LARGEST_TENSOR = 60  # numbers that someone may compute with; the smallest parameter below is larger
Sizes = tuple[int, int, int, int, int, bool]  # vocab_size, context_length, emb_dim, n_heads, n_layers, qkv_bias


def counting_case(sizes: Sizes, shares_head: bool, **more: Any) -> Case:
    vocab_size, context_length, emb_dim, n_heads, n_layers, qkv_bias = sizes
    fields = fields_for(emb_dim, n_heads, context_length, qkv_bias, vocab_size, n_layers)
    return {"fields": fields | more, "tied": shares_head}


def drawn_sizes(generator: torch.Generator, qkv_bias: bool) -> Sizes:
    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    n_heads = between(2, 9)
    return between(70, 999), between(70, 500), n_heads * between(40, 90), n_heads, between(2, 20), qkv_bias


def untied_models(generator: torch.Generator) -> list[Case]:
    return [
        counting_case((97, 65, 64, 4, 3, False), False),
        counting_case(drawn_sizes(generator, True), False),
        counting_case(drawn_sizes(generator, False), False),
        counting_case((101, 70, 63, 7, 1, True), False, drop_rate=0.3),
    ]


def tied_models(generator: torch.Generator) -> list[Case]:
    return [
        counting_case((97, 65, 64, 4, 3, False), True),
        counting_case(drawn_sizes(generator, True), True),
        counting_case(drawn_sizes(generator, False), True),
    ]


def any_models(generator: torch.Generator) -> list[Case]:
    """The published sizes and odd ones; what the configuration says of tying counts for nothing."""
    published = [dataclasses.asdict(PRESETS[name]) for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")]
    cases = [{"fields": fields, "tied": i % 2 == 0} for i, fields in enumerate(published)]
    cases += [{"fields": published[0] | {"qkv_bias": False}, "tied": False}]
    odd = drawn_sizes(generator, True)
    cases += [counting_case(odd, True, tied=False), counting_case(odd, False, tied=True)]
    cases += [counting_case((1, 1, 64, 1, 1, qkv_bias), tied) for qkv_bias in (True, False) for tied in (True, False)]
    return [*cases, counting_case((3, 2, 1, 1, 2, True), False), counting_case((5, 4, 2, 1, 1, False), True)]


class BuildsError(Exception):
    """Raised where an answer starts to build what it should only count."""


class Building(TorchFunctionMode):
    """While active, a new module or a tensor as large as a parameter is noted, and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.started = ""

    def __enter__(self) -> "Building":
        self.original = nn.Module.__init__

        def refuse(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            self.stop(f"a {type(module).__name__}")

        nn.Module.__init__ = refuse
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        nn.Module.__init__ = self.original
        super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.numel() > LARGEST_TENSOR:
            self.stop(f"a tensor of {made.numel()} numbers")
        return made

    def stop(self, what: str) -> None:
        self.started = self.started or what
        raise BuildsError(f"builds {what}")


def observe_count(answer: Any, case: Case) -> Observation:
    """The count, what the answer built on the way, and the global random state."""
    cfg = GPTConfig(**case["fields"])
    states = RandomStates()
    with Building() as building:
        count = attempt(lambda: answer(cfg, case["tied"]))
    again = count if building.started else attempt(lambda: answer(cfg, case["tied"]))
    return {"builds": building.started, "result": count, "same_again": again == count, **states.unchanged()}


# 6.7 ------------------------------------------------------------------------------------------------


class Holder(nn.Module):
    """A module that holds others, by name."""

    def __init__(self, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Asked by no exercise."""
        return x


class Norm(nn.Module):
    """Where the scale and shift of a norm live."""

    def __init__(self, d: int):
        super().__init__()
        self.scale = nn.Parameter(1 + torch.rand(d))
        self.shift = nn.Parameter(torch.rand(d))

    def forward(self, x: Tensor) -> Tensor:
        """Asked by no exercise."""
        return x


def bare_linear(d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    """An ``nn.Linear`` without its own way to draw numbers, which takes most of the time here."""
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = d_in, d_out
    linear.weight = nn.Parameter(torch.rand(d_out, d_in))
    linear.bias = nn.Parameter(torch.rand(d_out)) if bias else None
    return linear


def model_to_load(fields: Fields) -> nn.Module:
    """A stand-in for ``GPTModel``: the same parameters, buffers and attributes, and nothing to compute."""
    cfg = GPTConfig(**fields)
    d = cfg.emb_dim

    def block() -> nn.Module:
        linears = {name: bare_linear(d, d, bias=cfg.qkv_bias) for name in ("W_query", "W_key", "W_value")}
        att = Holder(**linears, out_proj=bare_linear(d, d), dropout=nn.Dropout(cfg.drop_rate))
        att.num_heads, att.head_dim, att.d_out = cfg.n_heads, d // cfg.n_heads, d
        att.context_length = cfg.context_length
        att.register_buffer("mask", torch.ones(cfg.context_length, cfg.context_length).triu(1).bool())
        layers = nn.Sequential(bare_linear(d, 4 * d), nn.Identity(), bare_linear(4 * d, d))
        return Holder(att=att, ff=Holder(layers=layers), norm1=Norm(d), norm2=Norm(d), drop=nn.Dropout(cfg.drop_rate))

    model = Holder(
        tok_emb=nn.Embedding(cfg.vocab_size, d),
        pos_emb=nn.Embedding(cfg.context_length, d),
        drop_emb=nn.Dropout(cfg.drop_rate),
        trf_blocks=nn.Sequential(*(block() for _ in range(cfg.n_layers))),
        final_norm=Norm(d),
        out_head=bare_linear(d, cfg.vocab_size, bias=False),
    )
    model.cfg = cfg
    return model


def published_shapes(fields: Fields) -> Shapes:
    """Names and shapes in Hugging Face's layout, without the prefix; the head comes last."""
    d, vocab_size = fields["emb_dim"], fields["vocab_size"]
    shapes: Shapes = {"wte.weight": (vocab_size, d), "wpe.weight": (fields["context_length"], d)}
    for layer in range(fields["n_layers"]):
        for name, sizes in {
            "ln_1": (d,),
            "attn.c_attn": (d, 3 * d),
            "attn.c_proj": (d, d),
            "ln_2": (d,),
            "mlp.c_fc": (d, 4 * d),
            "mlp.c_proj": (4 * d, d),
        }.items():
            shapes |= {f"h.{layer}.{name}.weight": sizes, f"h.{layer}.{name}.bias": sizes[-1:]}
    return shapes | {"ln_f.weight": (d,), "ln_f.bias": (d,), "lm_head.weight": (vocab_size, d)}


def published_weights(generator: torch.Generator, fields: Fields) -> dict[str, Tensor]:
    return normal_parameters(generator, published_shapes(fields))


def old_buffers(fields: Fields) -> dict[str, Tensor]:
    """What old versions of the layout store besides."""
    length = fields["context_length"]
    mask = torch.ones(1, 1, length, length).tril()
    return {
        f"h.{layer}.attn.{name}": value
        for layer in range(fields["n_layers"])
        for name, value in (("bias", mask), ("masked_bias", torch.tensor(-1e4)))
    }


def shuffled(generator: torch.Generator, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = list(tensors)
    return {names[i]: tensors[names[i]] for i in torch.randperm(len(names), generator=generator).tolist()}


def prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n if n.startswith("lm_head") else f"transformer.{n}": tensor for n, tensor in tensors.items()}


def file_case(
    generator: torch.Generator,
    fields: Fields,
    prefix: bool = False,
    head: bool = True,
    buffers: bool = False,
    in_order: bool = False,
) -> Case:
    """A model's sizes and a file of weights for it."""
    weights = published_weights(generator, fields)
    if not head:
        del weights["lm_head.weight"]
    if buffers:
        weights |= old_buffers(fields)
    if not in_order:
        weights = shuffled(generator, weights)
    return {"fields": fields, "weights": prefixed(weights) if prefix else weights}


SMALL = {"emb_dim": 4, "context_length": 5, "vocab_size": 7, "n_layers": 2}


def files(generator: torch.Generator) -> list[Case]:
    return [
        file_case(generator, fields_for(**SMALL), prefix=True, in_order=True),
        file_case(generator, fields_for(6, 3, 4, vocab_size=9, n_layers=1), prefix=True, head=False),
        file_case(generator, fields_for(3, 1, 7, vocab_size=5, n_layers=3)),
    ]


def odd_files(generator: torch.Generator) -> list[Case]:
    cases = [
        file_case(generator, fields_for(**SMALL), head=False, buffers=True),
        file_case(generator, fields_for(4, 4, 4, vocab_size=4, n_layers=1), prefix=True, buffers=True),  # many squares
        file_case(generator, fields_for(1, 1, 1, vocab_size=1, n_layers=1), head=False),
        file_case(generator, fields_for(5, 1, 3, vocab_size=11, n_layers=2), prefix=True, buffers=True, in_order=True),
        file_case(generator, fields_for(2, 2, 2, vocab_size=3, n_layers=11), prefix=True, buffers=True),  # h.10 and h.1
    ]
    cases = in_turns(cases)
    return [case | {"dtype": "float64" if i % 2 else "float32"} for i, case in enumerate(cases)]


def files_with_gaps(generator: torch.Generator) -> list[Case]:
    """One tensor is missing, whichever; in the last two cases more than one."""
    cases = []
    gaps = ("ln_f.bias", "h.1.attn.c_attn.bias", "wte.weight")
    for i, name in enumerate(gaps):
        case = file_case(generator, fields_for(**SMALL), prefix=i % 2 == 0, buffers=i % 3 == 0, in_order=i % 2 == 1)
        cases.append(without(case, name) | {"names": [name]})
    no_embedding = file_case(generator, fields_for(**SMALL), head=False)
    cases.append(without(no_embedding, "wte.weight") | {"names": ["wte.weight"]})
    too_few = file_case(generator, fields_for(**SMALL), prefix=True)
    return [*cases, without(too_few, "h.1.") | {"names": ["h.1."]}]


def without(case: Case, part_of_name: str) -> Case:
    return case | {"weights": {n: tensor for n, tensor in case["weights"].items() if part_of_name not in n}}


def files_that_do_not_fit(generator: torch.Generator) -> list[Case]:
    """One tensor has another shape: transposed, of another model, or one that would be spread without a word."""
    shapes = published_shapes(fields_for(**SMALL))
    misfits: dict[str, tuple[int, ...]] = {
        name: shapes[name][::-1] for name in ("h.1.attn.c_attn.weight", "h.0.mlp.c_fc.weight", "lm_head.weight")
    }
    misfits |= {"wte.weight": (8, 4), "wpe.weight": (6, 4), "h.0.attn.c_attn.bias": (4,), "h.1.ln_1.bias": (1,)}
    misfits |= {"ln_f.weight": (1, 4), "h.0.attn.c_proj.bias": ()}
    cases = []
    for i, (name, shape) in enumerate(misfits.items()):
        case = file_case(generator, fields_for(**SMALL), prefix=i % 2 == 0, in_order=i % 3 == 0)
        full = name if name in case["weights"] else f"transformer.{name}"
        case["weights"][full] = normal(generator, 1, *shape)[0]
        cases.append(case | {"names": [name]})
    return [*cases, *files_with_more_layers(generator)]


def files_with_more_layers(generator: torch.Generator) -> list[Case]:
    """The message may name a tensor, its layer or a number of layers: in any case it holds one of the digits."""
    fields = fields_for(2, 1, 3, vocab_size=7, n_layers=4)
    cases = []
    for n_layers in (5, 6):
        case = file_case(generator, fields | {"n_layers": n_layers}, prefix=n_layers == 5, buffers=n_layers == 6)
        cases.append(case | {"fields": fields, "any_of": [str(n) for n in range(4, n_layers + 1)]})
    return cases


def two_files(generator: torch.Generator) -> list[Case]:
    """Neither file of a pair has a head, or both have: an answer may tie the head where there is none."""
    cases = []
    for fields, head in ((fields_for(**SMALL), False), (fields_for(3, 3, 4, vocab_size=6, n_layers=1), True)):
        first, then = (file_case(generator, fields, prefix=not head, head=head, buffers=not head) for _ in range(2))
        cases.append(first | {"then": then["weights"]})
    return cases


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def weights_in(model: nn.Module, names: list[str]) -> dict[str, Any]:
    """The numbers of the parameters; the error where the answer put something else in their place."""
    found = dict(model.named_parameters(remove_duplicate=False))
    return {
        name: to_data(found[name]) if name in found else attempt(lambda name=name: model.get_parameter(name))
        for name in names
    }


def model_of(case: Case) -> tuple[nn.Module, list[str]]:
    """A model of the case's sizes, and the names of its parameters."""
    model = model_to_load(case["fields"])
    model = model.double() if case.get("dtype") == "float64" else model
    return model, [name for name, _ in model.named_parameters()]


def observe_loading(answer: Any, case: Case) -> Observation:
    """The model's weights after loading."""
    model, names = model_of(case)
    stopped = attempt(lambda: [answer(model, copied(case["weights"])), None][1])
    return {"stopped": stopped, "weights": weights_in(model, names)}


def observe_file_refusal(answer: Any, case: Case) -> Observation:
    """The error for a file that does not fit, and whether the model is as it was."""
    model, names = model_of(case)
    before = weights_in(model, names)
    error = attempt(lambda: [answer(model, copied(case["weights"])), "no error"][1])
    after = weights_in(model, names)
    unchanged = attempt(lambda: all(identical(before[name], after[name]) for name in names))
    return {"error": error, "unchanged": unchanged}


def observe_loading_manners(answer: Any, case: Case) -> Observation:
    """What loading does besides, and loading other weights over the first ones."""
    model, names = model_of(case)
    given = copied(case["weights"])
    tensors = dict(given)
    states = RandomStates()
    stopped = attempt(lambda: [answer(model, given), None][1])
    manners = {
        "inputs_unchanged": list(given) == list(case["weights"])
        and all(given[name] is tensors[name] and identical(given[name], case["weights"][name]) for name in given),
        **states.unchanged(),
        "trainable": {name: attempt(lambda n=name: model.get_parameter(n).requires_grad) for name in names},
    }
    if stopped is None:
        stopped = attempt(lambda: [answer(model, copied(case["then"])), None][1])
    return {"stopped": stopped, "weights": weights_in(model, names), **manners}


PROBES = {
    "6.1": {
        "values": Probe(ordinary_rows, observe_output),
        "epsilon": Probe(nearly_constant_rows, observe_output),
        "any_input": Probe(odd_rows, observe_output),
        "manners": Probe(two_norms, observe_norm_manners),
    },
    "6.2": {
        "values": Probe(moderate_numbers, plainly),
        "any_input": Probe(odd_numbers, plainly),
        "manners": Probe(two_tensors, watched),
    },
    "6.3": {
        "values": Probe(feed_forwards, from_config(observe_output)),
        "any_input": Probe(odd_feed_forwards, from_config(observe_after_shorter)),
        "manners": Probe(two_feed_forwards, from_config(observe_names_and_manners)),
    },
    "6.4": {
        "values": Probe(blocks, from_config(observe_output)),
        "any_input": Probe(odd_blocks, from_config(observe_after_shorter)),
        "dropout": Probe(blocks_with_dropout, from_config(observe_in_training)),
        "length_error": Probe(blocks_too_short, from_config(observe_refusal)),
        "manners": Probe(two_blocks, from_config(observe_module_manners)),
    },
    "6.5": {
        "values": Probe(models, from_config(observe_output)),
        "any_input": Probe(odd_models, from_config(observe_after_shorter)),
        "structure": Probe(models_to_look_at, from_config(observe_names)),
        "dropout": Probe(models_with_dropout, from_config(observe_in_training)),
        "length_error": Probe(models_too_short, from_config(observe_refusal)),
        "manners": Probe(two_models, from_config(observe_manners_in_both_modes, rate="drop_rate")),
    },
    "6.6": {
        "untied": Probe(untied_models, observe_count),
        "tied": Probe(tied_models, observe_count),
        "any_model": Probe(any_models, observe_count),
    },
    "6.7": {
        "values": Probe(files, observe_loading),
        "any_file": Probe(odd_files, observe_loading),
        "missing_error": Probe(files_with_gaps, observe_file_refusal),
        "shape_error": Probe(files_that_do_not_fit, observe_file_refusal),
        "manners": Probe(two_files, observe_loading_manners),
    },
}
