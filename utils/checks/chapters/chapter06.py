"""Exercises of chapter 6, GPT-2.

Legend: B batch, T tokens, V vocabulary size, d emb_dim, H heads, D head size, L layers, C calls.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import MultiHeadAttention
from utils.checks.chapters.dropout import SHARE
from utils.checks.chapters.parts import any_input, manners, values
from utils.checks.compare import difference, judge_error, judge_observation, show
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter06 import PROBES
from utils.checks.probes.observe import Case, Observation, Raised
from utils.costs import count_parameters
from utils.gpt import EPSILON, FeedForward, GPTModel, LayerNorm, TransformerBlock, gelu, load_gpt2_weights

CLOSE = 2e-6  # in float64: room for an answer that computes in float32 inside, not for another formula


def judge_closely(got: Observation, expected: Observation, case: Case) -> str | None:
    """As the default, and results in float64 agree to six digits: that tells formulas apart which differ by little."""
    if found := judge_observation(got, expected, case):
        return found
    result, wanted = got["result"], expected["result"]
    is_wrong = ~torch.isclose(result, wanted, rtol=CLOSE, atol=CLOSE)
    if wanted.dtype != torch.float64 or not bool(is_wrong.any()):
        return None
    where = tuple(is_wrong.nonzero()[0].tolist())
    return (
        f"Nearly right, but not rounding either: {int(is_wrong.sum())} of {wanted.numel()} numbers differ; at "
        f"{list(where)} got {float(result[where]):.7f}, expected {float(wanted[where]):.7f}."
    )


def length_part(points: int) -> Part:
    """A sequence that is too long must be refused."""
    return Part(
        "length_error",
        "More tokens than context_length are refused",
        points,
        "Raise a ValueError that names the number of tokens when it exceeds `cfg.context_length`.",
        judge_error,
        ("values",),
    )


# 6.1 ------------------------------------------------------------------------------------------------


class Norm(LayerNorm):
    """The reference in steps, so that a mistake is one changed step. Answers take the size only."""

    dims: Any = -1
    correction = 0
    eps = EPSILON

    def __init__(self, emb_dim):
        super().__init__(emb_dim)

    def variance(self, x):
        return x.var(dim=self.dims, keepdim=True, correction=self.correction)

    def centred(self, x):
        return x - x.mean(dim=self.dims, keepdim=True)

    def spread(self, x):
        return torch.sqrt(self.variance(x) + self.eps)

    def scaled(self, normed):
        return self.scale * normed + self.shift

    def forward(self, x):
        return self.scaled(self.centred(x) / self.spread(x))


class UnbiasedVariance(Norm):
    def variance(self, x):
        return x.var(dim=-1, keepdim=True)


class EpsilonOutside(Norm):
    def spread(self, x):
        return torch.sqrt(self.variance(x)) + self.eps


class NoEpsilon(Norm):
    eps = 0.0


class SmallerEpsilon(Norm):
    eps = 1e-6


class EpsilonOfPlainText(Norm):
    eps = 1e-3


class OverTokens(Norm):
    dims = -2

    def forward(self, x):
        return super().forward(x[None])[0] if x.dim() == 1 else super().forward(x)


class OverBatch(Norm):
    dims = 0


class OverEverything(Norm):
    dims = None


class OverTokensAndChannels(Norm):
    def forward(self, x):
        self.dims = tuple(range(1, x.dim())) or (0,)
        return super().forward(x)


class NotScaled(Norm):
    def scaled(self, normed):
        return normed


class ShiftBeforeScale(Norm):
    def scaled(self, normed):
        return self.scale * (normed + self.shift)


class ScaleAdded(Norm):
    def scaled(self, normed):
        return self.shift * normed + self.scale


class NotCentred(Norm):
    def centred(self, x):
        return x


class DividedByVariance(Norm):
    def spread(self, x):
        return self.variance(x) + self.eps


class NotDivided(Norm):
    def spread(self, x):
        return 1.0


class WithoutKeepdim(Norm):
    def forward(self, x):
        mean, variance = x.mean(dim=-1), x.var(dim=-1, correction=0)
        return self.scaled((x - mean) / torch.sqrt(variance + self.eps))


class PlainTensors(Norm):
    def __init__(self, emb_dim):
        nn.Module.__init__(self)
        self.scale, self.shift = torch.ones(emb_dim), torch.zeros(emb_dim)


class StartsAtZero(Norm):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.scale = nn.Parameter(torch.zeros(emb_dim))


class StartsAtRandom(Norm):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.scale, self.shift = nn.Parameter(torch.randn(emb_dim)), nn.Parameter(torch.randn(emb_dim))


class OneNumberEach(Norm):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))


class DetachedStatistics(Norm):
    def forward(self, x):
        mean, spread = x.mean(dim=-1, keepdim=True).detach(), self.spread(x).detach()
        return self.scaled((x - mean) / spread)


EXERCISE_6_1 = Exercise(
    id="6.1",
    title="LayerNorm",
    reference=LayerNorm,
    parts=(
        values(
            1,
            "Over the last dimension: subtract the mean, divide by the root of the variance plus 1e-5, then `scale` "
            "and `shift`.",
        ),
        Part(
            "epsilon",
            "Rows that hardly vary, or not at all",
            1,
            "Here epsilon counts: 1e-5, added to the variance, inside the root.",
            needs=("values",),
        ),
        any_input(1, "Any leading dimensions, float32 and float64, any memory layout"),
        manners(1, "Two parameters that start at 1 and 0, gradients flow, inputs and random state stay untouched"),
    ),
    probes=PROBES["6.1"],
    misconceptions=(
        Misconception(
            "unbiased variance",
            UnbiasedVariance,
            "You divide by d - 1: `var` does so unless it is told otherwise. GPT-2 divides by d: `correction=0` (or "
            "`unbiased=False`).",
        ),
        Misconception(
            "epsilon outside",
            EpsilonOutside,
            "You add epsilon to the root. It belongs inside, next to the variance: `torch.sqrt(variance + 1e-5)`.",
        ),
        Misconception(
            "no epsilon",
            NoEpsilon,
            "Where all numbers of a token are equal, the variance is zero and you divide by it. Add 1e-5 to the "
            "variance, inside the root.",
        ),
        Misconception(
            "smaller epsilon",
            SmallerEpsilon,
            "Your epsilon is 1e-6. GPT-2 was trained with 1e-5, and rows that hardly vary show the difference.",
        ),
        Misconception(
            "larger epsilon",
            EpsilonOfPlainText,
            "Your epsilon is 1e-3. GPT-2 was trained with 1e-5, and rows that hardly vary show the difference.",
        ),
        Misconception(
            "over the tokens",
            OverTokens,
            "You normalise along the tokens, so they see each other, later ones included. Each token is normalised by "
            "itself, over its channels: `dim=-1`.",
        ),
        Misconception(
            "over the batch",
            OverBatch,
            "You normalise along dimension 0, the batch: that is batch norm. LayerNorm takes each token by itself, "
            "over "
            "its channels: `dim=-1`.",
        ),
        Misconception(
            "over everything",
            OverEverything,
            "You take one mean and one variance of all numbers together. Each token has its own: `dim=-1` and "
            "`keepdim=True`.",
        ),
        Misconception(
            "over each sequence",
            OverTokensAndChannels,
            "You take the mean and the variance over a whole sequence, so its tokens see each other. Each token has "
            "its "
            "own: `dim=-1` alone.",
        ),
        Misconception(
            "scale and shift unused",
            NotScaled,
            "The rows are normalised, but `scale` and `shift` are never used, so they can't learn. At the end: "
            "`scale * normed + shift`.",
        ),
        Misconception(
            "shift before scale",
            ShiftBeforeScale,
            "You add the shift first and scale it along. First multiply by `scale`, then add `shift`.",
        ),
        Misconception(
            "scale and shift swapped",
            ScaleAdded,
            "You add `scale` and multiply by `shift`. It is the other way round: `scale * normed + shift`.",
        ),
        Misconception(
            "mean kept",
            NotCentred,
            "The mean is still there. Subtract it from `x` before you divide.",
        ),
        Misconception(
            "divided by the variance",
            DividedByVariance,
            "You divide by the variance. It is in squared units: divide by its root.",
        ),
        Misconception(
            "not divided",
            NotDivided,
            "You subtract the mean but leave the spread as it is. Divide by the root of the variance, too.",
        ),
        Misconception(
            "without keepdim",
            WithoutKeepdim,
            "Your mean and variance have lost the last dimension, so they meet the wrong numbers, or none. Keep it as "
            "1: `keepdim=True`.",
        ),
        Misconception(
            "no parameters",
            PlainTensors,
            "`scale` and `shift` are plain tensors: no optimizer finds them, and they stay behind when the module "
            "moves. Wrap each in `nn.Parameter`.",
        ),
        Misconception(
            "scale starts at zero",
            StartsAtZero,
            "Your scale starts at zero, so a new module forgets its input. Start with ones for `scale` and zeros for "
            "`shift`.",
        ),
        Misconception(
            "random start",
            StartsAtRandom,
            "Your parameters start at random. A new LayerNorm should change nothing after normalising: ones for "
            "`scale`, zeros for `shift`.",
        ),
        Misconception(
            "one number for all channels",
            OneNumberEach,
            "Your `scale` and `shift` are one number each. Every channel has its own: make them of size `emb_dim`.",
        ),
        Misconception(
            "detached statistics",
            DetachedStatistics,
            "Right numbers, but you detach mean and variance, as if they didn't depend on the input. Let the gradient "
            "flow through them, too.",
        ),
    ),
    forbid=frozenset(["layer_norm", "group_norm"]),
)


# 6.2 ------------------------------------------------------------------------------------------------


ROOT = math.sqrt(2 / math.pi)


def gelu_by(x, root=ROOT, factor=0.044715, power=3, half=0.5, one=1.0):
    """The reference with its constants open to mistakes."""
    return half * x * (one + torch.tanh(root * (x + factor * x**power)))


def gelu_exact(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_by_sigmoid(x):
    return x * torch.sigmoid(1.702 * x)


def gelu_as_silu(x):
    return x * torch.sigmoid(x)


def gelu_as_relu(x):
    return x.clamp(min=0)


def gelu_not_halved(x):
    return gelu_by(x, half=1.0)


def gelu_without_one(x):
    return gelu_by(x, one=0.0)


def gelu_root_of_two_pi(x):
    return gelu_by(x, root=math.sqrt(2 * math.pi))


def gelu_root_turned(x):
    return gelu_by(x, root=math.sqrt(math.pi / 2))


def gelu_without_root(x):
    return gelu_by(x, root=2 / math.pi)


def gelu_without_factor(x):
    return gelu_by(x, root=1.0)


def gelu_ten_times(x):
    return gelu_by(x, factor=0.44715)


def gelu_rounded(x):
    return gelu_by(x, factor=0.0447)


def gelu_squared(x):
    return gelu_by(x, power=2)


def gelu_without_cube(x):
    return gelu_by(x, factor=0.0)


def gelu_of_product(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x + 0.044715 * x**3))


def gelu_chance_only(x):
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_exponentials(x):
    up = torch.exp(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + (up - 1 / up) / (up + 1 / up))


def gelu_detached(x):
    return x * gelu_chance_only(x.detach())


EXERCISE_6_2 = Exercise(
    id="6.2",
    title="GELU",
    reference=gelu,
    parts=(
        Part(
            "values",
            "Right numbers where the function bends",
            1,
            "0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))): compare it with your line, bracket by bracket.",
            judge_closely,
        ),
        any_input(
            1,
            "Large numbers, any shape, float32 and float64, any memory layout",
            "`torch.tanh` stays finite for numbers of any size; powers of e do not.",
        ),
        manners(1),
    ),
    probes=PROBES["6.2"],
    misconceptions=(
        Misconception(
            "exact form",
            gelu_exact,
            "This is the exact GELU, with `erf`, and that is where `F.gelu` starts from, too. GPT-2 was trained with "
            "the approximation by `tanh`; the two differ in the fourth decimal.",
        ),
        Misconception(
            "sigmoid",
            gelu_by_sigmoid,
            "This is the other approximation, x·σ(1.702·x). GPT-2 uses the one by `tanh`.",
        ),
        Misconception(
            "SiLU",
            gelu_as_silu,
            "This is x·σ(x), known as SiLU or Swish. GELU bends more sharply: use the formula by `tanh`.",
        ),
        Misconception(
            "ReLU",
            gelu_as_relu,
            "This is ReLU. GELU has no corner at 0 and is slightly negative left of it: use the formula by `tanh`.",
        ),
        Misconception(
            "not halved",
            gelu_not_halved,
            "Your results are twice as large as they should be. 1 + tanh lies between 0 and 2: the factor 0.5 makes "
            "it a share.",
        ),
        Misconception(
            "one forgotten",
            gelu_without_one,
            "You forgot the 1 in (1 + tanh(…)), so the result is the same for x and -x.",
        ),
        Misconception(
            "root of 2π",
            gelu_root_of_two_pi,
            "You take the root of 2·π. It is the root of 2 divided by π: `math.sqrt(2 / math.pi)`, about 0.798.",
        ),
        Misconception(
            "root of π/2",
            gelu_root_turned,
            "You take the root of π/2. Turn the fraction around: `math.sqrt(2 / math.pi)`, about 0.798.",
        ),
        Misconception(
            "root forgotten",
            gelu_without_root,
            "You multiply by 2/π. It is the root of it: `math.sqrt(2 / math.pi)`, about 0.798.",
        ),
        Misconception(
            "factor forgotten",
            gelu_without_factor,
            "Inside the tanh the factor √(2/π) is missing: `math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)`.",
        ),
        Misconception(
            "ten times too much",
            gelu_ten_times,
            "A zero is missing in your constant: it is 0.044715, not 0.44715.",
        ),
        Misconception(
            "rounded constant",
            gelu_rounded,
            "Your constant is rounded to 0.0447. The published weights were trained with 0.044715: write all its "
            "digits.",
        ),
        Misconception(
            "square",
            gelu_squared,
            "You square x inside the tanh. It is the third power: `x**3`.",
        ),
        Misconception(
            "no cube",
            gelu_without_cube,
            "The term 0.044715·x³ inside the tanh is missing.",
        ),
        Misconception(
            "brackets",
            gelu_of_product,
            "A pair of brackets is missing: √(2/π) multiplies the whole sum x + 0.044715·x³.",
        ),
        Misconception(
            "x forgotten",
            gelu_chance_only,
            "These are shares between 0 and 1. Multiply them by x.",
        ),
        Misconception(
            "exponentials",
            gelu_exponentials,
            "Right formula, but your powers of e overflow for large x, and inf/inf is NaN. `torch.tanh` computes the "
            "same without.",
        ),
        Misconception(
            "detached",
            gelu_detached,
            "Right numbers, but you cut the gradient off inside the tanh. Compute with `x` itself, without `.detach()` "
            "or `torch.no_grad()`.",
        ),
    ),
    forbid=frozenset(["gelu"]),
)


# 6.3 ------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """The reference in steps, so that a mistake is one changed step."""

    wide = 4
    activation: type[nn.Module] = nn.GELU
    options: Mapping[str, Any] = {"approximate": "tanh"}
    biases = (True, True)

    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Sequential(*self.made(cfg))

    def made(self, cfg):
        d, hidden = cfg.emb_dim, self.wide * cfg.emb_dim
        first, second = nn.Linear(d, hidden, bias=self.biases[0]), nn.Linear(hidden, d, bias=self.biases[1])
        return [first, self.activation(**self.options), second]

    def forward(self, x):
        return self.layers(x)


class WithoutActivation(Layers):
    activation, options = nn.Identity, {}


class WithReLU(Layers):
    activation, options = nn.ReLU, {}


class WithExactGELU(Layers):
    options: Mapping[str, Any] = {}


class WithSiLU(Layers):
    activation, options = nn.SiLU, {}


class TwiceAsWide(Layers):
    wide = 2


class NotWider(Layers):
    wide = 1


class WithoutBias(Layers):
    biases = (False, False)


class BiasAsInAttention(Layers):
    def __init__(self, cfg):
        self.biases = (cfg.qkv_bias, cfg.qkv_bias)
        super().__init__(cfg)


class ActivationLast(Layers):
    """The names stay right, for a module without parameters keeps the place in the middle."""

    def made(self, cfg):
        first, activation, second = super().made(cfg)
        return [first, nn.Identity(), second, activation]


class ActivationTwice(Layers):
    def made(self, cfg):
        first, activation, second = super().made(cfg)
        return [first, activation, second, activation]


class DropsAtTheEnd(Layers):
    def made(self, cfg):
        return [*super().made(cfg), nn.Dropout(cfg.drop_rate)]


class OtherNames(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(cfg.emb_dim, 4 * cfg.emb_dim), nn.Linear(4 * cfg.emb_dim, cfg.emb_dim)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(x)))


class TwoLayersOnly(Layers):
    def made(self, cfg):
        first, _, second = super().made(cfg)
        return [first, second]

    def forward(self, x):
        return self.layers[1](gelu(self.layers[0](x)))


class AddsItsInput(Layers):
    def forward(self, x):
        return x + self.layers(x)


EXERCISE_6_3 = Exercise(
    id="6.3",
    title="Feed-forward",
    reference=FeedForward,
    parts=(
        Part(
            "values",
            "Right numbers on ordinary input",
            1,
            "`nn.Linear(d, 4 * d)`, GELU by `tanh`, `nn.Linear(4 * d, d)`, one after the other in `self.layers`.",
            judge_closely,
        ),
        Part(
            "any_input",
            "Any sizes, training mode, float64, any memory layout",
            1,
            "The earlier numbers are right, so look at what is special here: sizes, mode, dtype or memory layout.",
            judge_closely,
            ("values",),
        ),
        manners(1, "Names of the parameters; gradients flow, inputs and random state stay untouched"),
    ),
    probes=PROBES["6.3"],
    misconceptions=(
        Misconception(
            "no activation",
            WithoutActivation,
            "There is nothing between the two linear layers, so together they are one linear layer. Put GELU between "
            "them.",
        ),
        Misconception(
            "ReLU",
            WithReLU,
            "Your activation is ReLU, as in the first transformers. GPT-2 uses GELU by `tanh`.",
        ),
        Misconception(
            "exact GELU",
            WithExactGELU,
            "`nn.GELU()` computes the exact form. GPT-2 was trained with the approximation: "
            '`nn.GELU(approximate="tanh")`, or your own `gelu`.',
        ),
        Misconception(
            "SiLU",
            WithSiLU,
            "Your activation is x·σ(x), known as SiLU or Swish. GPT-2 uses GELU by `tanh`.",
        ),
        Misconception(
            "twice as wide",
            TwiceAsWide,
            "Your hidden layer is twice as wide as the input. GPT-2's is four times as wide: `4 * cfg.emb_dim`.",
        ),
        Misconception(
            "not wider",
            NotWider,
            "Your hidden layer is as wide as the input. GPT-2's is four times as wide: `4 * cfg.emb_dim`.",
        ),
        Misconception(
            "no bias",
            WithoutBias,
            "Both linear layers have a bias, whatever `qkv_bias` says: leave `bias` at its default.",
        ),
        Misconception(
            "qkv_bias",
            BiasAsInAttention,
            "You let `cfg.qkv_bias` decide about the biases here. It is about queries, keys and values only; these two "
            "layers always have a bias.",
        ),
        Misconception(
            "activation last",
            ActivationLast,
            "Your GELU comes after the second layer. It belongs between the two: nothing follows the second.",
        ),
        Misconception(
            "activation twice",
            ActivationTwice,
            "You apply GELU after the second layer as well. What is added to the stream may be negative: nothing "
            "follows the second layer.",
        ),
        Misconception(
            "dropout",
            DropsAtTheEnd,
            "Your feed-forward has dropout of its own. Here the block does that, after both of its branches; twice "
            "would be too much.",
        ),
        Misconception(
            "other names",
            OtherNames,
            "Put the three layers into `self.layers`, an `nn.Sequential`: other parts of the course look for "
            "`layers.0` and `layers.2`.",
        ),
        Misconception(
            "two layers only",
            TwoLayersOnly,
            "The second linear layer is `layers.1` in yours and should be `layers.2`: GELU has a place in `layers`, "
            "too, between the others.",
        ),
        Misconception(
            "residual",
            AddsItsInput,
            "You add the input to the output. The block does that, around its branches; leave it out here.",
        ),
    ),
)


# 6.4 ------------------------------------------------------------------------------------------------


def training_fault(got: Observation, expected: Observation, rate: float) -> str | None:
    """What is wrong before one looks at what was dropped. See ``probes.chapter06.observe_in_training``."""
    if isinstance(stopped := got.get("raised"), Raised):
        return f"Your code raised {show(stopped)}"
    for name in ("without", "eval_again"):
        if found := difference(got.get(name), expected["without"]):
            return f"In eval mode nothing is dropped. {found}"
    seen = got.get("in_training")
    if isinstance(seen, Raised):
        return f"In training mode your code raised {show(seen)}"
    if found := difference(seen if seen is None else torch.zeros_like(seen), torch.zeros_like(expected["in_training"])):
        return found
    if bool(seen.isnan().any()):
        return "In training mode the output holds NaN."
    if torch.allclose(seen, expected["without"].expand_as(seen), rtol=1e-3, atol=1e-6):
        return f"With drop_rate={rate} nothing is dropped in training."
    return None


def mask_fault(kept: Tensor, rate: float, what: str) -> str | None:
    """What is wrong with which numbers are dropped. ``kept``: (C, B, T, d) bool."""
    dropped = float((~kept).double().mean())
    if abs(dropped - rate) > SHARE:
        return f"With drop_rate={rate} about {rate:.0%} of {what} should be dropped; yours drops {dropped:.0%}."
    for dim, who in enumerate(("call", "sequence of the batch", "token", "channel")):
        if kept.shape[dim] > 1 and bool((kept == kept.narrow(dim, 0, 1)).all()):
            return (
                f"Every {who} drops the same numbers of {what}. Each number should have a draw of its own, every time."
            )
    if bool(kept.flatten(0, 2).all(dim=0).any()):
        return f"Some channels of {what} are never dropped."
    return None


def judge_block_dropout(got: Observation, expected: Observation, case: Case) -> str | None:
    """Dropout on the branches, and on the weights of attention. See ``probes.chapter06.blocks_with_dropout``."""
    rate = case["arguments"]["drop_rate"]
    if found := training_fault(got, expected, rate):
        return found
    x, whole = case["x"], expected["without"] - case["x"]  # (B, T, d): what both branches add where nothing is dropped
    change = got["in_training"] - x  # (C, B, T, d)
    if case["shows"] == "weights":
        return weights_fault(change, whole, rate, case["arguments"]["n_heads"])
    parts = [whole]
    if case["shows"] == "branches":
        from_attention = case["parameters"]["att.out_proj.bias"].expand_as(x)
        parts = [from_attention, whole - from_attention]
    kept = (torch.arange(2 ** len(parts))[:, None] >> torch.arange(len(parts))) & 1  # (K, n): all combinations
    sums = torch.einsum("kn,nbtd->kbtd", kept.to(x), torch.stack(parts)) / (1 - rate)
    distance, nearest = (change - sums[:, None]).abs().min(dim=0)  # (K, C, B, T, d) -> (C, B, T, d)
    if bool((distance > 1e-4).any()):
        place = tuple((distance > 1e-4).nonzero()[0].tolist())
        wanted = ", ".join(f"{float(number):.4f}" for number in sums[(slice(None), *place[1:])])
        return (
            f"In training mode with drop_rate={rate} a branch adds each of its numbers either not at all or times "
            f"1/(1-p) = {1 / (1 - rate):.2f}, and x itself stays whole. Yours changes a number of x by "
            f"{float(change[place]):.4f}; expected one of {wanted}."
        )
    names = ["the feed-forward's branch"] if len(parts) == 1 else ["attention's branch", "the feed-forward's branch"]
    masks = [((nearest >> i) & 1).bool() for i in range(len(parts))]
    for name, mask in zip(names, masks, strict=True):
        if found := mask_fault(mask, rate, name):
            return found
    if len(masks) > 1 and torch.equal(*masks):
        return "Both branches drop the same numbers. Each should have a draw of its own."
    return None


def weights_fault(change: Tensor, whole: Tensor, rate: float, n_heads: int) -> str | None:
    """What is wrong with the dropout inside attention, where all values of a head are alike.

    Query t has t + 1 equal weights, so its context shows how many of them were kept, then the branch's dropout
    follows: a change is ``whole`` times kept / (t + 1) / (1 - p)**2, or 0.

    Args:
        change: (C, B, T, d) in training mode.
        whole: (B, T, d) in eval mode.
    """
    scaled = whole / (1 - rate)
    if bool((torch.isclose(change, scaled) | (change.abs() < 1e-9)).all()):
        return (
            f"With drop_rate={rate} attention drops none of its weights in training. `MultiHeadAttention` has dropout "
            "of its own: pass `cfg.drop_rate` on to it."
        )
    num_tokens = whole.shape[-2]
    visible = torch.arange(1.0, num_tokens + 1)[:, None, None]  # (T, 1, 1): how many keys each query sees
    kept = (change / scaled * (1 - rate)).unflatten(-1, (n_heads, -1)) * visible  # (C, B, T, H, D)
    counts = kept.round()
    of_head = counts.amax(dim=-1, keepdim=True)  # the branch's dropout leaves some of its channels, hardly ever none
    is_odd = ((kept - counts).abs() > 1e-3) | ((counts != 0) & (counts != of_head)) | (counts < 0) | (counts > visible)
    between = (of_head > 0) & (of_head < visible)
    if bool(is_odd.any()) or (num_tokens > 1 and not bool(between.any())):
        return (
            f"In training mode with drop_rate={rate} dropout applies twice on the way through attention: on its "
            "weights, before they meet the values, and on the finished branch. Yours drops something else, or scales "
            "otherwise."
        )
    dropped = 1 - float(of_head.sum() / visible.expand_as(of_head).sum())
    if abs(dropped - rate) > SHARE:
        return (
            f"With drop_rate={rate} about {rate:.0%} of attention's weights should be dropped; yours drops "
            f"{dropped:.0%}."
        )
    for dim, who in ((0, "call"), (1, "sequence of the batch"), (3, "head")):
        if of_head.shape[dim] > 1 and bool((of_head == of_head.narrow(dim, 0, 1)).all()):
            return f"Every {who} drops the same weights of attention. Each weight should have a draw of its own."
    return None


class Block(TransformerBlock):
    """The reference in steps, so that a mistake is one changed step."""

    def __init__(self, cfg):
        nn.Module.__init__(self)
        self.att = self.attention(cfg)
        self.ff = FeedForward(cfg)
        self.norm1, self.norm2 = LayerNorm(cfg.emb_dim), LayerNorm(cfg.emb_dim)
        self.drop = nn.Dropout(cfg.drop_rate)

    def attention(self, cfg):
        d = cfg.emb_dim
        return MultiHeadAttention(d, d, cfg.context_length, cfg.drop_rate, cfg.n_heads, cfg.qkv_bias)

    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class PostNorm(Block):
    def forward(self, x):
        x = self.norm1(x + self.drop(self.att(x)))
        return self.norm2(x + self.drop(self.ff(x)))


class NormOfTheBranch(Block):
    def forward(self, x):
        x = x + self.drop(self.norm1(self.att(x)))
        return x + self.drop(self.norm2(self.ff(x)))


class NormBeforeAndAfter(Block):
    def forward(self, x):
        x = self.norm2(x + self.drop(self.att(self.norm1(x))))
        return x + self.drop(self.ff(x))


class WithoutNorms(Block):
    def forward(self, x):
        x = x + self.drop(self.att(x))
        return x + self.drop(self.ff(x))


class NoResidual(Block):
    def forward(self, x):
        x = self.drop(self.att(self.norm1(x)))
        return self.drop(self.ff(self.norm2(x)))


class NoFirstResidual(Block):
    def forward(self, x):
        x = self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class NoSecondResidual(Block):
    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return self.drop(self.ff(self.norm2(x)))


class ResidualOfNormed(Block):
    def forward(self, x):
        x = self.norm1(x)
        x = x + self.drop(self.att(x))
        x = self.norm2(x)
        return x + self.drop(self.ff(x))


class ResidualFromTheStart(Block):
    def forward(self, x):
        after = x + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(after)))


class FirstNormTwice(Block):
    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm1(x)))


class NormsSwapped(Block):
    def forward(self, x):
        x = x + self.drop(self.att(self.norm2(x)))
        return x + self.drop(self.ff(self.norm1(x)))


class SharedNorm(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm2 = self.norm1


class InParallel(Block):
    def forward(self, x):
        return x + self.drop(self.att(self.norm1(x))) + self.drop(self.ff(self.norm2(x)))


class FeedForwardFirst(Block):
    def forward(self, x):
        x = x + self.drop(self.ff(self.norm2(x)))
        return x + self.drop(self.att(self.norm1(x)))


class NoDropoutOnBranches(Block):
    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class NoDropoutOnAttention(Block):
    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.drop(self.ff(self.norm2(x)))


class NoDropoutOnFeedForward(Block):
    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return x + self.ff(self.norm2(x))


class DropsTheSum(Block):
    def forward(self, x):
        x = self.drop(x + self.att(self.norm1(x)))
        return self.drop(x + self.ff(self.norm2(x)))


class DropsAlways(Block):
    def forward(self, x):
        x = x + F.dropout(self.att(self.norm1(x)), self.drop.p)
        return x + F.dropout(self.ff(self.norm2(x)), self.drop.p)


class AttentionDropsNothing(Block):
    def attention(self, cfg):
        return super().attention(dataclasses.replace(cfg, drop_rate=0.0))


class BiasIgnored(Block):
    def attention(self, cfg):
        return super().attention(dataclasses.replace(cfg, qkv_bias=False))


class BiasAlways(Block):
    def attention(self, cfg):
        return super().attention(dataclasses.replace(cfg, qkv_bias=True))


class OneHead(Block):
    def attention(self, cfg):
        return super().attention(dataclasses.replace(cfg, n_heads=1))


class LengthOfGPT2(Block):
    def attention(self, cfg):
        return super().attention(dataclasses.replace(cfg, context_length=1024))


class SeesTheFuture(Block):
    def attention(self, cfg):
        attention = super().attention(cfg)
        attention.mask.zero_()
        return attention


EXERCISE_6_4 = Exercise(
    id="6.4",
    title="The transformer block",
    reference=TransformerBlock,
    parts=(
        values(2, "`x = x + drop(att(norm1(x)))`, then `x = x + drop(ff(norm2(x)))`."),
        any_input(1, "With and without bias, short sequences, training mode, float64, any memory layout"),
        Part(
            "dropout",
            "Dropout on each branch and inside attention, in training only",
            1,
            "`nn.Dropout(cfg.drop_rate)` on what each branch gives, before it is added; attention gets "
            "`cfg.drop_rate`, "
            "too.",
            judge_block_dropout,
            ("values",),
        ),
        length_part(1),
        manners(1, "Names of the parameters; gradients flow, inputs and random state stay untouched"),
    ),
    probes=PROBES["6.4"],
    misconceptions=(
        Misconception(
            "post-norm",
            PostNorm,
            "You normalise after each addition, as the first transformers did. GPT-2 normalises what goes into a "
            "branch: `x + drop(att(norm1(x)))`.",
        ),
        Misconception(
            "norm of the branch",
            NormOfTheBranch,
            "You normalise what comes out of each branch. The norm comes first: `att(norm1(x))`, `ff(norm2(x))`.",
        ),
        Misconception(
            "norm before and after attention",
            NormBeforeAndAfter,
            "You normalise before and after attention. Each branch has its own norm at its start: `norm1` before "
            "`att`, "
            "`norm2` before `ff`, and the stream itself is never normalised.",
        ),
        Misconception(
            "no norms",
            WithoutNorms,
            "Your norms are never used. `norm1` comes before `att`, `norm2` before `ff`.",
        ),
        Misconception(
            "no residuals",
            NoResidual,
            "You replace x by what the branches give. Add it instead: `x = x + ...`, both times.",
        ),
        Misconception(
            "no first residual",
            NoFirstResidual,
            "The input is lost after attention. Add what attention gives to x: `x = x + drop(att(norm1(x)))`.",
        ),
        Misconception(
            "no second residual",
            NoSecondResidual,
            "The stream is lost after the feed-forward. Add what it gives to x: `x + drop(ff(norm2(x)))`.",
        ),
        Misconception(
            "residual of the normed",
            ResidualOfNormed,
            "You overwrite x with its normalised form and add to that. Only the branch sees the norm; what you add to "
            "is x as it was.",
        ),
        Misconception(
            "residual from the start",
            ResidualFromTheStart,
            "Your second addition starts from the block's input, so what attention found is lost. Add to the x that "
            "attention has changed.",
        ),
        Misconception(
            "first norm twice",
            FirstNormTwice,
            "You use `norm1` twice and `norm2` never. Each branch has its own: `norm2` before the feed-forward.",
        ),
        Misconception(
            "norms swapped",
            NormsSwapped,
            "Your norms are swapped: `norm1` belongs to attention, `norm2` to the feed-forward. Loaded weights would "
            "land in the wrong place.",
        ),
        Misconception(
            "one norm for both",
            SharedNorm,
            "`norm1` and `norm2` are one object in your block. Build two of them.",
        ),
        Misconception(
            "in parallel",
            InParallel,
            "Your feed-forward gets the block's input, side by side with attention. In GPT-2 it comes afterwards and "
            "sees what attention added.",
        ),
        Misconception(
            "feed-forward first",
            FeedForwardFirst,
            "Your feed-forward comes before attention. First the tokens exchange, then each works on its own.",
        ),
        Misconception(
            "no dropout on attention's branch",
            NoDropoutOnAttention,
            "What attention gives is added without dropout. Send it through `nn.Dropout(cfg.drop_rate)` first, like "
            "the feed-forward's.",
        ),
        Misconception(
            "no dropout on the feed-forward's branch",
            NoDropoutOnFeedForward,
            "What the feed-forward gives is added without dropout. Send it through `nn.Dropout(cfg.drop_rate)` first, "
            "like attention's.",
        ),
        Misconception(
            "no dropout on the branches",
            NoDropoutOnBranches,
            "Your branches are added without dropout: what attention has inside is not enough. Send what each branch "
            "gives through `nn.Dropout(cfg.drop_rate)` first.",
        ),
        Misconception(
            "dropout after the addition",
            DropsTheSum,
            "You drop from the sum, so parts of x itself get lost. Drop from the branch alone, before it is added.",
        ),
        Misconception(
            "dropout in eval mode",
            DropsAlways,
            "Your dropout knows no eval mode: `F.dropout` drops unless it is told `training=self.training`. "
            "`nn.Dropout` knows the mode by itself.",
        ),
        Misconception(
            "attention drops nothing",
            AttentionDropsNothing,
            "You drop from the branches, but attention drops none of its weights. Pass `cfg.drop_rate` on to "
            "`MultiHeadAttention`.",
        ),
        Misconception(
            "qkv_bias ignored",
            BiasIgnored,
            "`cfg.qkv_bias` never reaches attention, whose own default is no bias. Pass it on to `MultiHeadAttention`.",
        ),
        Misconception(
            "qkv_bias always",
            BiasAlways,
            "Your queries, keys and values always have a bias. Pass on what `cfg.qkv_bias` says.",
        ),
        Misconception(
            "one head",
            OneHead,
            "Your attention has one head. Pass `cfg.n_heads` on to `MultiHeadAttention`.",
        ),
        Misconception(
            "length of GPT-2",
            LengthOfGPT2,
            "Your attention accepts longer sequences than `cfg.context_length`. Pass it on to `MultiHeadAttention`, "
            "which refuses what is longer.",
        ),
        Misconception(
            "sees the future",
            SeesTheFuture,
            "Your tokens look at later tokens. Attention in a GPT is causal: `MultiHeadAttention` hides the future.",
        ),
    ),
)


# 6.5 ------------------------------------------------------------------------------------------------


def judge_model_dropout(got: Observation, expected: Observation, case: Case) -> str | None:
    """Dropout on the embeddings and inside the blocks. See ``probes.chapter06.models_with_dropout``."""
    fields, parameters = case["arguments"], case["parameters"]
    rate, d, idx = fields["drop_rate"], fields["emb_dim"], case["x"]
    if found := training_fault(got, expected, rate):
        return found
    if case["shows"] == "embeddings":
        names = ["the embeddings' sum"]
        parts = [parameters["tok_emb.weight"][idx] + parameters["pos_emb.weight"][: idx.shape[1]]]  # (B, T, d)
    else:
        names = ["attention's branch", "the feed-forward's branch"]
        last = f"trf_blocks.{fields['n_layers'] - 1}"
        biases = [parameters[f"{last}.{name}.bias"] for name in ("att.out_proj", "ff.layers.2")]
        parts = [bias.expand(*idx.shape, d) for bias in biases]
    bits = len(parts) * d
    kept = ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1).unflatten(1, (-1, d))  # (K, n, d): all masks
    streams = torch.einsum("knd,nbtd->kbtd", kept.double(), torch.stack(parts)) / (1 - rate)
    normed = F.layer_norm(streams, (d,), eps=EPSILON)
    logits = normed @ parameters["out_head.weight"].T  # (K, B, T, V)
    distance, nearest = (got["in_training"] - logits[:, None]).abs().amax(dim=-1).min(dim=0)  # (C, B, T)
    if bool((distance > 1e-4).any()):
        return (
            f"In training mode with drop_rate={rate} each number of {' and of '.join(names)} should be either 0 or "
            f"1/(1-p) = {1 / (1 - rate):.2f} times what it is without dropout, and nothing else should be dropped."
        )
    masks = kept[nearest].bool().unbind(dim=-2)  # n times (C, B, T, d)
    for name, mask in zip(names, masks, strict=True):
        if found := mask_fault(mask, rate, name):
            return found
    return None


class Model(nn.Module):
    """The reference in steps, so that a mistake is one changed step."""

    block: type[nn.Module] = TransformerBlock

    def __init__(self, cfg):
        super().__init__()
        self.context_length = cfg.context_length
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = self.blocks(cfg)
        self.final_norm = LayerNorm(cfg.emb_dim)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)

    def blocks(self, cfg):
        return nn.Sequential(*(self.block(cfg) for _ in range(cfg.n_layers)))

    def refuse(self, num_tokens):
        if num_tokens > self.context_length:
            raise ValueError(f"{num_tokens} tokens, but context_length is {self.context_length}")

    def positions(self, idx):
        return self.pos_emb(torch.arange(idx.shape[1]))

    def embedded(self, idx):
        return self.drop_emb(self.tok_emb(idx) + self.positions(idx))

    def logits(self, x):
        return self.out_head(self.final_norm(x))

    def forward(self, idx):
        self.refuse(idx.shape[1])
        return self.logits(self.trf_blocks(self.embedded(idx)))


class PositionsAfterLookUp(Model):
    def embedded(self, idx):
        x = self.tok_emb(idx)
        return self.drop_emb(x + self.pos_emb(torch.arange(x.shape[-1])))


class NoPositions(Model):
    def embedded(self, idx):
        return self.drop_emb(self.tok_emb(idx))


class PositionsFromOne(Model):
    def positions(self, idx):
        return self.pos_emb(torch.arange(1, idx.shape[1] + 1).clamp(max=self.context_length - 1))


class PositionsFromTheEnd(Model):
    def positions(self, idx):
        return self.pos_emb(torch.arange(self.context_length - idx.shape[1], self.context_length))


class PositionsReversed(Model):
    def positions(self, idx):
        return self.pos_emb(torch.arange(idx.shape[1]).flip(0))


class AllPositionsAdded(Model):
    def positions(self, idx):
        return self.pos_emb(torch.arange(self.context_length))


class PositionOfTheToken(Model):
    def positions(self, idx):
        return self.pos_emb(idx.clamp(max=self.context_length - 1))


class PositionsNextToTokens(Model):
    def embedded(self, idx):
        x, positions = self.tok_emb(idx), self.positions(idx)
        return self.drop_emb(x * positions)


class NoFinalNorm(Model):
    def logits(self, x):
        return self.out_head(x)


class NormFirst(Model):
    def embedded(self, idx):
        return self.final_norm(super().embedded(idx))

    def logits(self, x):
        return self.out_head(x)


class TiedHead(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.out_head.weight = self.tok_emb.weight


class HeadWithBias(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size)


class NoHead(Model):
    def logits(self, x):
        return self.final_norm(x)


class LastPositionOnly(Model):
    def logits(self, x):
        return super().logits(x[:, -1])


class Probabilities(Model):
    def logits(self, x):
        return torch.softmax(super().logits(x), dim=-1)


class WithoutEmbeddingDropout(Model):
    def embedded(self, idx):
        return self.tok_emb(idx) + self.positions(idx)


class DropsTokensOnly(Model):
    def embedded(self, idx):
        return self.drop_emb(self.tok_emb(idx)) + self.positions(idx)


class DropsSeparately(Model):
    def embedded(self, idx):
        return self.drop_emb(self.tok_emb(idx)) + self.drop_emb(self.positions(idx))


class SameBlockRepeated(Model):
    def blocks(self, cfg):
        return nn.Sequential(*[self.block(cfg)] * cfg.n_layers)


class BlocksInPlainList(Model):
    def blocks(self, cfg):
        return [self.block(cfg) for _ in range(cfg.n_layers)]

    def forward(self, idx):
        self.refuse(idx.shape[1])
        x = self.embedded(idx)
        for block in self.trf_blocks:
            x = block(x)
        return self.logits(x)


class BlocksSideBySide(Model):
    def forward(self, idx):
        self.refuse(idx.shape[1])
        x = self.embedded(idx)
        return self.logits(x + sum(block(x) - x for block in self.trf_blocks))


class BlocksReversed(Model):
    def forward(self, idx):
        self.refuse(idx.shape[1])
        x = self.embedded(idx)
        for block in reversed(self.trf_blocks):
            x = block(x)
        return self.logits(x)


class AddsAroundBlocks(Model):
    def forward(self, idx):
        self.refuse(idx.shape[1])
        x = self.embedded(idx)
        for block in self.trf_blocks:
            x = x + block(x)
        return self.logits(x)


class ScaledEmbeddings(Model):
    def embedded(self, idx):
        x = self.tok_emb(idx) * self.tok_emb.embedding_dim**0.5
        return self.drop_emb(x + self.positions(idx))


class PositionsOfVocabularySize(Model):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.pos_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)


class CutsTooLong(Model):
    def forward(self, idx):
        return super().forward(idx[:, -self.context_length :])


class IndexErrorForTooLong(Model):
    def refuse(self, num_tokens):
        """Leave it to the look-up."""


class LengthNotNamed(Model):
    def refuse(self, num_tokens):
        if num_tokens > self.context_length:
            raise ValueError("the input is too long")


class BlocksWithPostNorm(Model):
    block = PostNorm


class BlocksWithoutMask(Model):
    block = SeesTheFuture


EXERCISE_6_5 = Exercise(
    id="6.5",
    title="GPT-2 itself",
    reference=GPTModel,
    parts=(
        values(
            2,
            "Tokens plus positions, dropout, the blocks one after the other, the final norm, the head: compare your "
            "`forward` with this list.",
        ),
        Part(
            "structure",
            "Names and shapes of all parameters",
            1,
            "`tok_emb`, `pos_emb`, `trf_blocks`, `final_norm`, `out_head`: sizes and number come from `cfg`.",
            needs=("values",),
        ),
        any_input(1, "Short sequences, single ones, one layer or more, training mode, float64, any memory layout"),
        Part(
            "dropout",
            "Dropout on the embeddings and in the blocks, in training only",
            1,
            "`drop_emb` comes after tokens and positions are added; the blocks bring their own.",
            judge_model_dropout,
            ("values",),
        ),
        length_part(1),
        manners(1),
    ),
    probes=PROBES["6.5"],
    misconceptions=(
        Misconception(
            "positions after the look-up",
            PositionsAfterLookUp,
            "You count the positions by `x.shape[-1]` after the look-up, when the last dimension is the embedding. "
            "Take the number of tokens from `idx.shape[1]`.",
        ),
        Misconception(
            "no positions",
            NoPositions,
            "Your model never adds the positions, so it can't tell the order of the tokens before it. Add "
            "`pos_emb(torch.arange(T))`.",
        ),
        Misconception(
            "positions from one",
            PositionsFromOne,
            "Your positions start at 1. The first token stands at position 0: `torch.arange(T)`.",
        ),
        Misconception(
            "positions from the end",
            PositionsFromTheEnd,
            "A short sequence gets the last positions in yours. It starts at position 0: `torch.arange(T)`.",
        ),
        Misconception(
            "positions reversed",
            PositionsReversed,
            "Your positions run backwards. The first token stands at position 0: `torch.arange(T)`.",
        ),
        Misconception(
            "all positions",
            AllPositionsAdded,
            "You add all `context_length` positions, but a sequence may be shorter. Take the first T: "
            "`torch.arange(idx.shape[1])`.",
        ),
        Misconception(
            "token as position",
            PositionOfTheToken,
            "You look the positions up by the token ids. A position is where a token stands, not which one it is: "
            "`torch.arange(T)`.",
        ),
        Misconception(
            "positions multiplied",
            PositionsNextToTokens,
            "You multiply tokens and positions. Add them up.",
        ),
        Misconception(
            "no final norm",
            NoFinalNorm,
            "The stream reaches the head as it is. One more norm comes after the last block: "
            "`out_head(final_norm(x))`.",
        ),
        Misconception(
            "norm at the start",
            NormFirst,
            "You apply `final_norm` before the blocks. It comes after the last one, right before the head.",
        ),
        Misconception(
            "tied head",
            TiedHead,
            "Your head shares its weight with the token embedding. Here they are two parameters: leave out the line "
            "that ties them.",
        ),
        Misconception(
            "head with bias",
            HeadWithBias,
            "Your head has a bias, and GPT-2's has none: `bias=False`.",
        ),
        Misconception(
            "no head",
            NoHead,
            "Your model stops before the head. `out_head` turns each token's vector into a score for every word of "
            "the vocabulary.",
        ),
        Misconception(
            "last position only",
            LastPositionOnly,
            "You return the scores of the last position only. In training every position predicts its next token: "
            "return (B, T, V).",
        ),
        Misconception(
            "probabilities",
            Probabilities,
            "You return probabilities. Return the scores themselves: the loss and the sampling take the softmax.",
        ),
        Misconception(
            "no dropout on the embeddings",
            WithoutEmbeddingDropout,
            "`drop_emb` is never used. Apply it to the sum of tokens and positions.",
        ),
        Misconception(
            "dropout on the tokens only",
            DropsTokensOnly,
            "You drop from the tokens before the positions are added. `drop_emb` comes after, on the sum.",
        ),
        Misconception(
            "dropout on each embedding",
            DropsSeparately,
            "You drop from tokens and positions separately. `drop_emb` comes once, on their sum.",
        ),
        Misconception(
            "same block repeated",
            SameBlockRepeated,
            "Your model has the weights of one block only, whatever `cfg.n_layers` says; `[block] * n` is one block "
            "several times. Build a new one each time: `[TransformerBlock(cfg) for _ in range(cfg.n_layers)]`.",
        ),
        Misconception(
            "plain list",
            BlocksInPlainList,
            "PyTorch can't see blocks in a plain list: no optimizer would train them. Put them into `nn.Sequential`.",
        ),
        Misconception(
            "side by side",
            BlocksSideBySide,
            "All of your blocks read the embeddings. Each should read what the one before has written.",
        ),
        Misconception(
            "blocks reversed",
            BlocksReversed,
            "You run the blocks from last to first. Block 0 comes first.",
        ),
        Misconception(
            "residual around the blocks",
            AddsAroundBlocks,
            "You add each block's output to its input. The blocks do that inside, twice: `x = block(x)` is enough.",
        ),
        Misconception(
            "scaled embeddings",
            ScaledEmbeddings,
            "You multiply the embeddings by the root of their size, as the first transformer did. GPT-2 doesn't.",
        ),
        Misconception(
            "positions of vocabulary size",
            PositionsOfVocabularySize,
            "Your `pos_emb` has a row for each word of the vocabulary. It needs one for each position: "
            "`cfg.context_length`.",
        ),
        Misconception(
            "cut",
            CutsTooLong,
            "You cut a sequence that is too long, and nobody hears of it. Raise a ValueError that names the number of "
            "tokens.",
        ),
        Misconception(
            "error of the look-up",
            IndexErrorForTooLong,
            "For a sequence that is too long you leave the error to the look-up of the positions. Check first, and "
            "raise a ValueError that names the number of tokens.",
        ),
        Misconception(
            "length not named",
            LengthNotNamed,
            "Your error doesn't say how many tokens there were. Put the number into the message.",
        ),
        Misconception(
            "blocks with post-norm",
            BlocksWithPostNorm,
            "Your blocks normalise after each addition. GPT-2's normalise what goes into a branch, see exercise 6.4.",
        ),
        Misconception(
            "blocks without a mask",
            BlocksWithoutMask,
            "Your model looks at the tokens that it should predict: its attention has no causal mask.",
        ),
    ),
)


# 6.6 ------------------------------------------------------------------------------------------------


def judge_count(got: Observation, expected: Observation, case: Case) -> str | None:
    """As the default; besides, nothing may be built on the way."""
    if got.get("builds"):
        return f"Your answer builds {got['builds']}. Count by formula, from the sizes in `cfg` alone."
    return judge_observation(got, expected, case)


def count_by(
    cfg,
    tied,
    qkv_bias=None,
    out_bias=1,
    positions=1,
    ff_bias=5,
    norms=2,
    final_norm=1,
    norm_size=2,
    head_bias=0,
    wide=4,
    out_proj=1,
    embeddings=1,
    blocks=None,
):
    """The reference with its terms open to mistakes."""
    d = cfg.emb_dim
    has_bias = cfg.qkv_bias if qkv_bias is None else qkv_bias
    attention = 3 * d * d + 3 * d * has_bias + out_proj * d * d + out_bias * d
    block = attention + 2 * wide * d * d + ff_bias * d + norms * norm_size * d
    tables = embeddings * cfg.vocab_size * d + positions * cfg.context_length * d
    head = 0 if tied else cfg.vocab_size * (d + head_bias)
    return tables + (cfg.n_layers if blocks is None else blocks) * block + final_norm * norm_size * d + head


def count_without_qkv_bias(cfg, tied):
    return count_by(cfg, tied, qkv_bias=0)


def count_with_qkv_bias(cfg, tied):
    return count_by(cfg, tied, qkv_bias=1)


def count_without_out_bias(cfg, tied):
    return count_by(cfg, tied, out_bias=0)


def count_without_out_proj(cfg, tied):
    return count_by(cfg, tied, out_bias=0, out_proj=0)


def count_without_positions(cfg, tied):
    return count_by(cfg, tied, positions=0)


def count_without_feed_forward_bias(cfg, tied):
    return count_by(cfg, tied, ff_bias=0)


def count_with_short_feed_forward_bias(cfg, tied):
    return count_by(cfg, tied, ff_bias=2)


def count_without_norms(cfg, tied):
    return count_by(cfg, tied, norms=0, final_norm=0)


def count_without_final_norm(cfg, tied):
    return count_by(cfg, tied, final_norm=0)


def count_with_scales_only(cfg, tied):
    return count_by(cfg, tied, norm_size=1)


def count_with_one_norm(cfg, tied):
    return count_by(cfg, tied, norms=1)


def count_ignoring_tied(cfg, tied):
    return count_by(cfg, False)


def count_always_tied(cfg, tied):
    return count_by(cfg, True)


def count_turned(cfg, tied):
    return count_by(cfg, not tied)


def count_by_config(cfg, tied):
    return count_by(cfg, cfg.tied)


def count_with_head_bias(cfg, tied):
    return count_by(cfg, tied, head_bias=1)


def count_per_head(cfg, tied):
    per_head = 3 * (cfg.emb_dim**2 + cfg.emb_dim * cfg.qkv_bias)
    return count_by(cfg, tied) + cfg.n_layers * (cfg.n_heads - 1) * per_head


def count_one_block(cfg, tied):
    return count_by(cfg, tied, blocks=1)


def count_twice_as_wide(cfg, tied):
    return count_by(cfg, tied, wide=2, ff_bias=3)


def count_of_masks(cfg, tied):
    return count_by(cfg, tied) + cfg.n_layers * cfg.context_length**2


def count_weights_only(cfg, tied):
    return count_by(cfg, tied, qkv_bias=0, out_bias=0, ff_bias=0, norm_size=0)


def count_as_float(cfg, tied):
    return count_by(cfg, tied) / 1


def count_in_millions(cfg, tied):
    return round(count_by(cfg, tied) / 1e6)


def count_of_a_model(cfg, tied):
    model = GPTModel(dataclasses.replace(cfg, tied=tied))
    return sum(parameter.numel() for parameter in model.parameters())


COUNTING_HINT = (
    "Go through the names of the parameters, one by one: embeddings, then a block's, the last norm, the head."
)

EXERCISE_6_6 = Exercise(
    id="6.6",
    title="Count the parameters",
    reference=count_parameters,
    parts=(
        Part("untied", "Right counts, with and without bias, with a head of its own", 2, COUNTING_HINT, judge_count),
        Part(
            "tied",
            "Right counts when head and embedding are one",
            1,
            "A shared weight counts once: leave out the head.",
            judge_count,
            ("untied",),
        ),
        Part(
            "any_model",
            "The published sizes and odd ones; inputs and random state stay untouched",
            1,
            COUNTING_HINT,
            judge_count,
            ("untied", "tied"),
        ),
    ),
    probes=PROBES["6.6"],
    misconceptions=(
        Misconception(
            "qkv bias forgotten",
            count_without_qkv_bias,
            "You leave out the biases of queries, keys and values. With `cfg.qkv_bias` each layer has three times d.",
        ),
        Misconception(
            "qkv bias always",
            count_with_qkv_bias,
            "You always count the biases of queries, keys and values. They are there only if `cfg.qkv_bias` says so.",
        ),
        Misconception(
            "bias of the output projection",
            count_without_out_bias,
            "Attention's output projection has a bias, too, in each layer: d more.",
        ),
        Misconception(
            "output projection forgotten",
            count_without_out_proj,
            "You leave out attention's output projection: d times d weights and a bias of d in each layer.",
        ),
        Misconception(
            "positions forgotten",
            count_without_positions,
            "The table of positions is missing: `context_length` times d.",
        ),
        Misconception(
            "feed-forward without bias",
            count_without_feed_forward_bias,
            "Both layers of the feed-forward have a bias: 4d and d more in each block.",
        ),
        Misconception(
            "feed-forward bias too short",
            count_with_short_feed_forward_bias,
            "You count d for the bias of the feed-forward's first layer. It has one number per output, and there are "
            "4d.",
        ),
        Misconception(
            "norms forgotten",
            count_without_norms,
            "The norms learn as well: a scale and a shift of size d each, two norms a block and one at the end.",
        ),
        Misconception(
            "final norm forgotten",
            count_without_final_norm,
            "The norm after the last block is missing: a scale and a shift, 2d in all.",
        ),
        Misconception(
            "scales only",
            count_with_scales_only,
            "You count d for a norm. It has a scale and a shift: 2d.",
        ),
        Misconception(
            "one norm a block",
            count_with_one_norm,
            "Each block has two norms, one for each branch.",
        ),
        Misconception(
            "tied ignored",
            count_ignoring_tied,
            "You count the head even when it shares the embedding's weight. A shared weight counts once.",
        ),
        Misconception(
            "always tied",
            count_always_tied,
            "You never count the head. Without `tied` it has a weight of its own: `vocab_size` times d.",
        ),
        Misconception(
            "tied turned around",
            count_turned,
            "You count the head when it is tied and leave it out when it isn't. It is the other way round.",
        ),
        Misconception(
            "tied from the configuration",
            count_by_config,
            "You look at `cfg.tied`. Whether the head is shared is what the argument `tied` says.",
        ),
        Misconception(
            "head with bias",
            count_with_head_bias,
            "You count a bias for the head. GPT-2's head has none.",
        ),
        Misconception(
            "heads multiplied",
            count_per_head,
            "You multiply the projections by the number of heads. The heads share out the d channels, so together they "
            "have d times d weights.",
        ),
        Misconception(
            "one block",
            count_one_block,
            "You count one block. There are `cfg.n_layers` of them.",
        ),
        Misconception(
            "twice as wide",
            count_twice_as_wide,
            "Your feed-forward is 2d wide. GPT-2's is 4d wide.",
        ),
        Misconception(
            "masks counted",
            count_of_masks,
            "You count the masks of attention. They are buffers: nothing in them is learned.",
        ),
        Misconception(
            "weights only",
            count_weights_only,
            "You count the matrices only. Biases and norms are learned, too.",
        ),
        Misconception(
            "float",
            count_as_float,
            "The number is right, but it is a float, and parameters come whole. Use `//` where you divide, or don't "
            "divide at all.",
        ),
        Misconception(
            "in millions",
            count_in_millions,
            "You return millions. Return the exact number, as an int.",
        ),
        Misconception(
            "builds the model",
            count_of_a_model,
            "You build a model in order to count it, which takes its memory and time. The sizes in `cfg` are all you "
            "need: multiply and add.",
        ),
    ),
)


# 6.7 ------------------------------------------------------------------------------------------------


def judge_loaded(got: Observation, expected: Observation, case: Case) -> str | None:
    """The model's weights, by name, then what loading does besides."""
    if isinstance(stopped := got.get("stopped", got.get("raised")), Raised):
        return f"Your code raised {show(stopped)}"
    for name, wanted in expected["weights"].items():
        if found := difference(got["weights"].get(name), wanted):
            return f"`{name}` after loading: {found}"
        if "trainable" in expected and got["trainable"][name] is not True:
            return f"`{name}` can't be trained any more after loading: it should still require gradients."
    facts = {name: value for name, value in expected.items() if name not in ("weights", "trainable")}
    return judge_observation(got, facts, case)


def judge_refused_file(got: Observation, expected: Observation, case: Case) -> str | None:
    """The error names the tensor, and the model is as it was before."""
    if found := judge_error(got, expected, case):
        return found
    message = got["error"].message
    if "any_of" in case and not any(text in message for text in case["any_of"]):
        return f"The error's message should name a tensor that has no place in the model; it says {show(message)}."
    if got.get("unchanged") is not True:
        return (
            "The error is right, but part of the model is already overwritten. Check all the tensors first, then copy."
        )
    return None


Copies = Iterator[tuple[nn.Parameter, Tensor]]


class Loader:
    """The exercise in steps, so that a mistake is one changed step. An object is used as the function."""

    prefix = "transformer."
    norms = ("norm1", "norm2")
    order = ("W_query", "W_key", "W_value")
    biases = True

    def __call__(self, model, state_dict):
        given = self.named(state_dict)
        self.check(model, given)
        with torch.no_grad():
            for parameter, tensor in self.copies(model, given):
                self.copy(parameter, tensor)

    def named(self, state_dict):
        given = {name.removeprefix(self.prefix): tensor for name, tensor in state_dict.items()}
        return {name: tensor for name, tensor in given.items() if not name.endswith((".attn.bias", ".masked_bias"))}

    def check(self, model, given):
        for name, shape in self.shapes(model).items():
            self.check_one(given, name, shape)
        for name in given:
            if name.startswith("h.") and int(name.split(".")[1]) >= len(model.trf_blocks):
                raise ValueError(f"{name} has no place in this model")

    def check_one(self, given, name, shape):
        if name not in given and name != "lm_head.weight":
            raise ValueError(f"{name} is missing")
        if name in given and given[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(given[name].shape)}, expected {shape}")

    def shapes(self, model):
        vocab_size, d = model.tok_emb.weight.shape
        shapes = {"wte.weight": (vocab_size, d), "wpe.weight": tuple(model.pos_emb.weight.shape)}
        linears = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
        for layer in range(len(model.trf_blocks)):
            for name, sizes in ({"ln_1": (d,), "ln_2": (d,)} | linears).items():
                shapes |= {f"h.{layer}.{name}.weight": sizes, f"h.{layer}.{name}.bias": sizes[-1:]}
        return shapes | {"ln_f.weight": (d,), "ln_f.bias": (d,), "lm_head.weight": (vocab_size, d)}

    def turned(self, weight):
        return weight.T

    def split(self, weight):
        """(d, 3d) -> three weights as ``nn.Linear`` holds them, (d, d)."""
        return [self.turned(piece) for piece in weight.chunk(3, dim=-1)]

    def split_bias(self, bias):
        return bias.chunk(3)

    def head(self, given):
        return given.get("lm_head.weight", given["wte.weight"])

    def copy(self, parameter, tensor):
        parameter.copy_(tensor)

    def copies(self, model, given) -> Copies:
        """Every parameter with what belongs into it."""
        yield model.tok_emb.weight, given["wte.weight"]
        yield model.pos_emb.weight, given["wpe.weight"]
        for layer, block in enumerate(model.trf_blocks):
            yield from self.block_copies(block, given, f"h.{layer}.")
        yield from self.norm_copies(model.final_norm, given, "ln_f")
        yield model.out_head.weight, self.head(given)

    def block_copies(self, block, given, h) -> Copies:
        projections = [getattr(block.att, name) for name in self.order]
        for linear, weight in zip(projections, self.split(given[f"{h}attn.c_attn.weight"]), strict=True):
            yield linear.weight, weight
        for linear, bias in zip(projections, self.split_bias(given[f"{h}attn.c_attn.bias"]), strict=True):
            if self.biases:
                yield linear.bias, bias
        yield from self.linear_copies(block.att.out_proj, given, f"{h}attn.c_proj")
        yield from self.linear_copies(block.ff.layers[0], given, f"{h}mlp.c_fc")
        yield from self.linear_copies(block.ff.layers[2], given, f"{h}mlp.c_proj")
        for name, published in zip(self.norms, ("ln_1", "ln_2"), strict=True):
            yield from self.norm_copies(getattr(block, name), given, f"{h}{published}")

    def linear_copies(self, linear, given, name) -> Copies:
        yield linear.weight, self.turned(given[f"{name}.weight"])
        if self.biases:
            yield linear.bias, given[f"{name}.bias"]

    def norm_copies(self, norm, given, name) -> Copies:
        yield norm.scale, given[f"{name}.weight"]
        yield norm.shift, given[f"{name}.bias"]


class NotTransposed(Loader):
    def turned(self, weight):
        return weight

    def check(self, model, given):
        """Shapes are compared when they are copied."""

    def copy(self, parameter, tensor):
        if parameter.shape != tensor.shape:
            raise ValueError(f"a parameter has shape {tuple(parameter.shape)}, its tensor {tuple(tensor.shape)}")
        parameter.copy_(tensor)


class SquareNotTransposed(Loader):
    def linear_copies(self, linear, given, name):
        weight = given[f"{name}.weight"]
        yield linear.weight, weight if weight.shape == linear.weight.shape else weight.T
        yield linear.bias, given[f"{name}.bias"]


class PiecesNotTransposed(Loader):
    def split(self, weight):
        return weight.chunk(3, dim=-1)


class NothingSquareTransposed(SquareNotTransposed):
    def split(self, weight):
        return weight.chunk(3, dim=-1)


class Reshaped(Loader):
    def turned(self, weight):
        return weight.reshape(weight.shape[1], weight.shape[0])

    def split(self, weight):
        return self.turned(weight).chunk(3)


class KeysFirst(Loader):
    order = ("W_key", "W_query", "W_value")


class ValuesFirst(Loader):
    order = ("W_value", "W_key", "W_query")


class SplitInTurns(Loader):
    def split(self, weight):
        return [weight[:, i::3].T for i in range(3)]

    def split_bias(self, bias):
        return [bias[i::3] for i in range(3)]


class BiasesForgotten(Loader):
    biases = False


class NormsOfBlockSwapped(Loader):
    norms = ("norm2", "norm1")


class ScaleAndShiftSwapped(Loader):
    def norm_copies(self, norm, given, name):
        yield norm.scale, given[f"{name}.bias"]
        yield norm.shift, given[f"{name}.weight"]


class HeadIgnored(Loader):
    def head(self, given):
        return given["wte.weight"]


class HeadDemanded(Loader):
    def check(self, model, given):
        if "lm_head.weight" not in given:
            raise ValueError("lm_head.weight is missing")
        super().check(model, given)


class HeadLeftAlone(Loader):
    def copies(self, model, given):
        *others, head = super().copies(model, given)
        return [*others, head] if "lm_head.weight" in given else others


class PrefixDemanded(Loader):
    def named(self, state_dict):
        given = {n.removeprefix(self.prefix): t for n, t in state_dict.items() if n.startswith((self.prefix, "lm_"))}
        return super().named(given)


class PrefixUnknown(Loader):
    prefix = "GPT2LMHeadModel."


class BuffersRefused(Loader):
    def named(self, state_dict):
        return {name.removeprefix(self.prefix): tensor for name, tensor in state_dict.items()}

    def check(self, model, given):
        super().check(model, given)
        for name in given:
            if name not in self.shapes(model):
                raise ValueError(f"{name} has no place in this model")


class PlainKeyError(Loader):
    def check_one(self, given, name, shape):
        if given.get(name, given["wte.weight"]).shape != shape:
            raise ValueError(f"{name} has the wrong shape")
        if name != "lm_head.weight":
            given[name]


class CopiesWhileChecking(Loader):
    """Each tensor is checked right before it is copied."""

    def check(self, model, given):
        """Nothing beforehand."""

    def __call__(self, model, state_dict):
        given = self.named(state_dict)
        named = Checked(given, self, self.shapes(model))
        with torch.no_grad():
            for parameter, tensor in self.copies(model, named):
                self.copy(parameter, tensor)
        super().check(model, given)


class Checked(dict):
    """Looks at each tensor when it is taken out."""

    def __init__(self, given, loader, shapes):
        super().__init__(given)
        self.loader, self.wanted = loader, shapes

    def __getitem__(self, name):
        self.loader.check_one(dict(self), name, self.wanted[name])
        return super().__getitem__(name)

    def get(self, name, default=None):
        if name in self:
            return self[name]  # checked, unlike what the built-in method gives
        return default


class ExtraLayersIgnored(Loader):
    def check(self, model, given):
        for name, shape in self.shapes(model).items():
            self.check_one(given, name, shape)


class MissingIgnored(Loader):
    def check_one(self, given, name, shape):
        if name in given:
            super().check_one(given, name, shape)

    def __call__(self, model, state_dict):
        given = self.named(state_dict)
        self.check(model, given)
        blank = {name: torch.full(shape, torch.nan) for name, shape in self.shapes(model).items()}
        blank["lm_head.weight"] = given.get("wte.weight", blank["lm_head.weight"])
        with torch.no_grad():
            for parameter, tensor in self.copies(model, blank | given):
                if not bool(tensor.isnan().any()):
                    parameter.copy_(tensor)


class SpreadsSmallTensors(Loader):
    """As ``copy_`` does without a check: what can be spread is spread."""

    def check_one(self, given, name, shape):
        if name in given:
            given[name] = given[name].expand(shape)
        super().check_one(given, name, shape)


class ShapesNotNamed(Loader):
    def check(self, model, given):
        try:
            super().check(model, given)
        except ValueError:
            raise ValueError("these weights don't fit the model") from None


class EmptiesTheFile(Loader):
    def named(self, state_dict):
        given = super().named(dict(state_dict))
        state_dict.clear()
        return given


class Frozen(Loader):
    def copy(self, parameter, tensor):
        parameter.copy_(tensor)
        parameter.requires_grad_(False)


class FirstLayerOnly(Loader):
    def copies(self, model, given):
        yield model.tok_emb.weight, given["wte.weight"]
        yield model.pos_emb.weight, given["wpe.weight"]
        for block in model.trf_blocks:
            yield from self.block_copies(block, given, "h.0.")
        yield from self.norm_copies(model.final_norm, given, "ln_f")
        yield model.out_head.weight, self.head(given)


EXERCISE_6_7 = Exercise(
    id="6.7",
    title="Load the published weights",
    reference=load_gpt2_weights,
    parts=(
        Part(
            "values",
            "Every tensor in its place",
            2,
            "Transpose every weight of a linear layer, the square ones as well; `c_attn` holds queries, keys and "
            "values "
            "side by side.",
            judge_loaded,
        ),
        Part(
            "any_file",
            "With and without prefix, head and buffers; any number of layers, float64",
            1,
            "Take off the prefix where it is, skip `attn.bias` and `attn.masked_bias`, and let `wte.weight` serve "
            "where "
            "there is no `lm_head.weight`.",
            judge_loaded,
            ("values",),
        ),
        Part(
            "missing_error",
            "Missing tensors are refused by name, and the model stays as it was",
            1,
            "Before you copy anything, see whether every name is there; raise a ValueError with the first that isn't.",
            judge_refused_file,
            ("values",),
        ),
        Part(
            "shape_error",
            "Misshapen tensors and surplus layers are refused by name, and the model stays as it was",
            1,
            "Before you copy anything, compare every shape with the one you need, and look for layers beyond the "
            "model's; `copy_` spreads small tensors without a word.",
            judge_refused_file,
            ("values",),
        ),
        Part(
            "manners",
            "A second file over the first; the file and the random state stay untouched",
            1,
            "",
            judge_loaded,
            ("values",),
        ),
    ),
    probes=PROBES["6.7"],
    misconceptions=(
        Misconception(
            "not transposed",
            NotTransposed(),
            "You copy the weights as they are. This layout stores a linear layer as (inputs, outputs), `nn.Linear` as "
            "(outputs, inputs): transpose them, each piece of `c_attn` as well.",
        ),
        Misconception(
            "square weights not transposed",
            NothingSquareTransposed(),
            "You transpose only where the shapes don't fit otherwise. The square ones are stored as (inputs, outputs), "
            "too, though no shape tells you: transpose `attn.c_proj` and the pieces of `c_attn`.",
        ),
        Misconception(
            "c_proj not transposed",
            SquareNotTransposed(),
            "`attn.c_proj.weight` is square, so it fits as it is, but it is stored as (inputs, outputs) like the "
            "others. Transpose it.",
        ),
        Misconception(
            "pieces not transposed",
            PiecesNotTransposed(),
            "You split `c_attn` into the right pieces but don't transpose them. They are square, so nothing "
            "complains: transpose each.",
        ),
        Misconception(
            "reshaped",
            Reshaped(),
            "`reshape` and `view` give the shape of a transposed matrix but leave the numbers in their old order. "
            "Use `.T`.",
        ),
        Misconception(
            "keys first",
            KeysFirst(),
            "You swapped queries and keys. `c_attn` holds queries, keys and values, in this order.",
        ),
        Misconception(
            "values first",
            ValuesFirst(),
            "You take the pieces of `c_attn` from the end. It holds queries, keys and values, in this order.",
        ),
        Misconception(
            "split in turns",
            SplitInTurns(),
            "You take every third column of `c_attn`. Queries, keys and values lie in three blocks of d columns: "
            "`chunk(3, dim=-1)`.",
        ),
        Misconception(
            "biases forgotten",
            BiasesForgotten(),
            "You copy the weights of the linear layers but leave their biases as they were. Every one has a bias in "
            "the file.",
        ),
        Misconception(
            "norms swapped",
            NormsOfBlockSwapped(),
            "You swapped the norms: `ln_1` belongs to `norm1`, before attention, `ln_2` to `norm2`.",
        ),
        Misconception(
            "scale and shift swapped",
            ScaleAndShiftSwapped(),
            "You swapped scale and shift. A norm's `weight` is the scale, its `bias` the shift.",
        ),
        Misconception(
            "first layer everywhere",
            FirstLayerOnly(),
            "Every block of yours gets the weights of layer 0. The number after `h.` says which block a tensor belongs "
            "to.",
        ),
        Misconception(
            "head ignored",
            HeadIgnored(),
            "You always copy the embedding into the head. If the file has `lm_head.weight`, that is what belongs "
            "there.",
        ),
        Misconception(
            "head demanded",
            HeadDemanded(),
            "You refuse a file without `lm_head.weight`. GPT-2's head is tied: where it is missing, `wte.weight` "
            "serves.",
        ),
        Misconception(
            "head left alone",
            HeadLeftAlone(),
            "Where the file has no `lm_head.weight`, your head keeps its random weights. `wte.weight` serves then.",
        ),
        Misconception(
            "prefix demanded",
            PrefixDemanded(),
            "You find tensors only behind the prefix `transformer.`. Files without it exist, too: take it off where it "
            "is, `name.removeprefix(...)`.",
        ),
        Misconception(
            "prefix unknown",
            PrefixUnknown(),
            "You don't find the tensors behind the prefix `transformer.`. Take it off where it is: "
            "`name.removeprefix(...)`.",
        ),
        Misconception(
            "buffers refused",
            BuffersRefused(),
            "You refuse `attn.bias` and `attn.masked_bias`. Old files hold the mask in these: skip them.",
        ),
        Misconception(
            "KeyError",
            PlainKeyError(),
            "A missing tensor ends in Python's KeyError, deep inside. Look whether every name is there first, and "
            "raise a "
            "ValueError that says which one isn't.",
        ),
        Misconception(
            "copies while checking",
            CopiesWhileChecking(),
            "You check each tensor right before you copy it, so an error leaves the model half overwritten. Check "
            "all of "
            "them first, then copy.",
        ),
        Misconception(
            "surplus layers ignored",
            ExtraLayersIgnored(),
            "A file with more layers than the model passes without a word, and the result is another model. Refuse "
            "names of layers that the model doesn't have.",
        ),
        Misconception(
            "missing tensors ignored",
            MissingIgnored(),
            "Where a tensor is missing, your model keeps its random numbers and nobody hears of it: as with "
            "`strict=False`. Raise a ValueError that names it.",
        ),
        Misconception(
            "small tensors spread",
            SpreadsSmallTensors(),
            "`copy_` spreads a small tensor over a large one without a word. Compare the shapes yourself before you "
            "copy.",
        ),
        Misconception(
            "tensor not named",
            ShapesNotNamed(),
            "Your error doesn't say which tensor is at fault. Put its name into the message.",
        ),
        Misconception(
            "file emptied",
            EmptiesTheFile(),
            "You take the tensors out of the dictionary that you were given, and its owner finds it empty. Work on a "
            "copy: "
            "`dict(state_dict)`.",
        ),
        Misconception(
            "frozen",
            Frozen(),
            "After loading, your parameters don't require gradients any more, so nobody can fine-tune the model. Copy "
            "inside `torch.no_grad()` and leave `requires_grad` alone.",
        ),
    ),
)


EXERCISES = (
    EXERCISE_6_1,
    EXERCISE_6_2,
    EXERCISE_6_3,
    EXERCISE_6_4,
    EXERCISE_6_5,
    EXERCISE_6_6,
    EXERCISE_6_7,
)
