"""How to try the answers of chapter 3. Legend: B batch, T tokens, C channels, d features."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.checks.probes.modules import (
    normal_parameters,
    observe_after_shorter,
    observe_buffers,
    observe_dropout,
    observe_manners,
    observe_output,
    observe_refusal,
    telling_values,
)
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    agree,
    attempt,
    call_plainly,
    in_both_precisions,
    normal,
    plainly,
    watched,
)

# 3.1 ------------------------------------------------------------------------------------------------

TIMES_LONGER = 16  # so much longer that the rounds of a doubling scan can't be mistaken for a call per position


def sequences(generator: torch.Generator) -> list[Case]:
    return [
        {"x": torch.tensor([[[2.0], [4.0], [9.0]]])},
        {"x": normal(generator, 2, 5, 3)},
        {"x": normal(generator, 3, 3, 3)},
    ]


def odd_sequences(generator: torch.Generator) -> list[Case]:
    cases = [
        {"x": normal(generator, 1, 1, 4)},
        {"x": normal(generator, 1, 7, 1)},
        {"x": normal(generator, 4, 2, 5), "strided": True},
        {"x": 10 * normal(generator, 2, 33, 2) + 20, "strided": True},
        {"x": normal(generator, 5, 4, 1)},
        {"x": normal(generator, 1, 300, 2)},
    ]
    return in_both_precisions(cases)


def two_sequences(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"x": normal(generator, 2, 4, 3)}, {"x": normal(generator, 1, 3, 2)}])


class Calls(TorchFunctionMode):
    """While active, counts the calls of PyTorch functions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def calls_for(answer: Any, x: Tensor) -> int:
    with Calls() as calls:
        attempt(lambda: answer(x))
    return calls.count


def observe_without_loop(answer: Any, case: Case) -> Observation:
    """The result, and whether a longer sequence takes at least one more call per position."""
    x = case["x"]
    longer = x.repeat(1, TIMES_LONGER, 1)  # (B, T, C) -> (B, 16T, C)
    more_calls = calls_for(answer, longer) - calls_for(answer, x.clone())
    seen = plainly(answer, case)
    return seen | {"position_by_position": more_calls >= longer.shape[1] - x.shape[1]}


# 3.2 ------------------------------------------------------------------------------------------------


def score_tables(generator: torch.Generator) -> list[Case]:
    return [
        {"scores": torch.zeros(3, 3)},
        {"scores": normal(generator, 6, 6)},
        {"scores": 2 * normal(generator, 2, 4, 4)},
        {"scores": 2 * normal(generator, 3, 3, 3)},
    ]


def odd_score_tables(generator: torch.Generator) -> list[Case]:
    cases = [
        {"scores": normal(generator, 1, 1)},
        {"scores": normal(generator, 1, 5, 5)},
        {"scores": 3 * normal(generator, 2, 3, 4, 4), "strided": True},
        {"scores": normal(generator, 4, 2, 2), "strided": True},
        {"scores": normal(generator, 2, 1, 3, 7, 7)},
    ]
    return in_both_precisions(cases)


def extreme_score_tables(generator: torch.Generator) -> list[Case]:
    above = torch.ones(4, 4).triu(1).bool()
    signs = torch.where(normal(generator, 2, 5, 5) > 0, 1e4, -1e4)
    cases = [
        {"scores": signs},
        {"scores": torch.full((3, 3), -1e4)},
        {"scores": torch.full((3, 3), 1e4) + normal(generator, 3, 3)},
        {"scores": torch.where(above, 1e4, -1e4) + normal(generator, 4, 4)},  # the largest ones are hidden
        {"scores": torch.where(above, -1e4, 1e4) + normal(generator, 2, 4, 4)},
        {"scores": torch.where(above, 1e4, normal(generator, 4, 4))},
    ]
    return in_both_precisions(cases)


def two_score_tables(generator: torch.Generator) -> list[Case]:
    return in_both_precisions([{"scores": normal(generator, 4, 4)}, {"scores": normal(generator, 2, 3, 3)}])


def observe_extremes(answer: Any, case: Case) -> Observation:
    """The weights, and whether the gradients stay finite."""
    leaf = case["scores"].clone().requires_grad_()

    def gradient_is_finite() -> bool:
        weights = answer(leaf * 1)
        steps = torch.linspace(0.5, 1.5, weights.numel(), dtype=weights.dtype).reshape(weights.shape)
        (gradient,) = torch.autograd.grad((weights * steps).sum(), leaf)
        return bool(gradient.isfinite().all())

    return {"result": call_plainly(answer, case["scores"]), "gradient_is_finite": attempt(gradient_is_finite)}


# 3.3 ------------------------------------------------------------------------------------------------
# What an answer is tried on. The functions take float32 and float64 and any batch, and bounded parts keep the
# size of a leak known, whatever inputs an answer draws.


def ripple(x: Tensor, channels: int) -> Tensor:
    """(..., d) -> (..., channels) in [-1, 1]: quite another value for every other input, near or far."""
    k = torch.arange(channels)
    return torch.sin((700.0 + 37.0 * k) * x[..., k % x.shape[-1]] + k)


class Mixture:
    """A causal function of tanh and a triangular matrix, with leaks and rounding noise on request.

    Its last channel is the same everywhere and the largest, so it sets what "largest absolute output" means.
    """

    def __init__(self, case: Case):
        self.case = case
        self.size = case.get("size", 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, T, d_in) -> (1, T, d_out)"""
        mix, project, scale = self.case["mix"], self.case["project"], self.case.get("scale", 1.0)
        x = x.detach()
        outputs = self.case.get("amplitude", 0.9) * torch.tanh(mix.to(x) @ x @ project.to(x))  # (1, T, d_out - 1)
        channels = outputs.shape[-1]
        for later, earlier in self.case.get("leaks", []):
            outputs[:, earlier] += self.size * ripple(x[:, later], channels)
        if "feature" in self.case:  # one feature of the last position, seen in one channel of the first
            outputs[:, 0, 0] += self.size * ripple(x[:, -1, self.case["feature"], None], 1)[:, 0]
        after = x.flip(1).cumsum(1).flip(1) - x  # (1, T, d_in): the sum of what is later
        outputs = outputs + self.case.get("noise", 0.0) * ripple(after, channels)
        return scale * torch.cat([outputs, torch.ones_like(outputs[..., :1])], dim=-1)


class Attention(nn.Module):
    """Self-attention, causal or not, with dropout on the weights."""

    def __init__(self, d_in: int, d_out: int, context_length: int, is_causal: bool, dropout: float):
        super().__init__()
        self.projections = nn.Linear(d_in, 3 * d_out)
        hidden = torch.ones(context_length, context_length).triu(1).bool()
        self.register_buffer("mask", hidden if is_causal else torch.zeros_like(hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_in) -> (B, T, d_out)"""
        queries, keys, values = self.projections(torch.sin(x)).chunk(3, dim=-1)  # bounded: no softmax saturates
        scores = queries @ keys.mT / keys.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(self.mask, -torch.inf), dim=-1)
        return self.dropout(weights) @ values


class DroppedFeatures(nn.Module):
    """A function of the inputs after dropout, as a module without parameters: random in training mode."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Identity())
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_in) -> (B, T, d_out)"""
        return self.function(self.inner(x))


def in_numpy(x: Tensor) -> Tensor:
    """The running sum, where no gradient can follow."""
    return torch.from_numpy(x.detach().numpy().cumsum(axis=1))


def reversed_in_numpy(x: Tensor) -> Tensor:
    """Back to front, where no gradient can follow."""
    return torch.from_numpy(x.detach().numpy()[:, ::-1].copy())


def one_step_back(x: Tensor) -> Tensor:
    """Each position shows the input before it."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)


def one_step_ahead(x: Tensor) -> Tensor:
    """Each position shows the input after it."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)


def order_of_positions(x: Tensor) -> Tensor:
    """The same for all inputs: the position's number."""
    return torch.arange(1.0, x.shape[1] + 1).to(x)[None, :, None].expand(len(x), -1, 2)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "each token by itself": lambda x: x * 2 + 1,
    "a running sum": lambda x: x.cumsum(1),
    "a running maximum": lambda x: x.cummax(1).values,
    "a running sum in NumPy": in_numpy,
    "whole numbers": lambda x: (3 * x.detach()).round().cumsum(1),
    "the token before": one_step_back,
    "numbers that depend on the position only": order_of_positions,
    "the next token": one_step_ahead,
    "the mean of all tokens": lambda x: x.mean(1, keepdim=True).expand_as(x),
    "the spread of all tokens": lambda x: (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)).detach().expand_as(x),
    "a running sum from the end": lambda x: x.flip(1).cumsum(1).flip(1),
    "the tokens in reverse order": lambda x: x.flip(1),
    "the tokens in reverse order, in NumPy": reversed_in_numpy,
    "the sum of all tokens in whole numbers": lambda x: (9 * x.detach().sum(1, keepdim=True)).round().expand_as(x),
}


def tried(generator: torch.Generator, about: str, num_tokens: int, d_in: int, channels: int = 8, **more: Any) -> Case:
    """A case of 3.3: ``about`` names what the answer is tried on, for the report as well."""
    return {
        "about": about,
        "context_length": num_tokens,
        "d_in": d_in,
        "mix": torch.softmax(normal(generator, num_tokens, num_tokens), dim=-1).tril(),
        "project": 2 * normal(generator, d_in, channels) / d_in**0.5,
        "seed": int(torch.randint(2**31, (), generator=generator)),
        **more,
    }


def in_any_order(generator: torch.Generator, cases: list[Case]) -> list[Case]:
    """The cases shuffled: what is asked for is a yes or no, and a known order would give it away."""
    return [cases[i] for i in torch.randperm(len(cases), generator=generator)]


def without_a_name(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, which can only be called: neither its name nor its attributes tell what it does."""
    return lambda x: function(x)


def thing_to_try(case: Case) -> Callable[[Tensor], Tensor]:
    """The callable or module that a case describes."""
    made = without_a_name(FUNCTIONS.get(case["about"], Mixture(case)))
    if "attention" in case:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(case["seed"])
            made = Attention(case["d_in"], 4, case["context_length"], **case["attention"])
            with torch.no_grad():
                made.projections.weight.mul_(2)  # weights far from uniform
    elif "training" in case:
        made = DroppedFeatures(made)
    return made.train(case["training"]) if isinstance(made, nn.Module) else made


def plain_callables(generator: torch.Generator) -> list[Case]:
    cases = [tried(generator, about, 5, 6) for about in FUNCTIONS]
    cases.append(tried(generator, "one token alone", 1, 4, leaks=[]))
    for training in (False, True):
        for is_causal in (True, False):
            about = "self-attention with a causal mask" if is_causal else "self-attention without a mask"
            options = {"is_causal": is_causal, "dropout": 0.0}
            cases.append(tried(generator, about, 6, 3, attention=options, training=training))
    return in_any_order(generator, cases)


def leaky_callables(generator: torch.Generator) -> list[Case]:
    def leak(about: str, num_tokens: int, *pairs: tuple[int, int], d_in: int = 8, **more: Any) -> Case:
        return tried(generator, f"a leak {about}", num_tokens, d_in, leaks=[list(pair) for pair in pairs], **more)

    return [
        leak("from the last token into the one before", 6, (5, 4)),
        leak("from the second token into the first", 6, (1, 0)),
        leak("from the last token into the first", 6, (5, 0)),
        leak("from one token in the middle into the one before", 7, (3, 2)),
        leak("from one token in the middle into another, two before", 7, (4, 2)),
        leak("from one token in the middle into another, two before", 8, (6, 4)),
        leak("between two tokens that are all there is", 2, (1, 0), d_in=1),
        *(
            leak("of a thousandth of the largest output", num_tokens, pair, size=1e-3, scale=scale, channels=24)
            for num_tokens, pair, scale in (
                (5, (2, 1), 1.0),
                (5, (4, 3), 1e-3),
                (4, (3, 0), 1e4),
                (7, (6, 1), 1e-2),
                (24, (23, 22), -1.0),
            )
        ),
        leak("through the last feature alone", 5, feature=4, d_in=5),
        leak("through the first feature alone", 4, feature=0, d_in=6),
        leak("of a module with dropout", 6, (5, 4), size=0.5, training=True),
        leak("of a module with dropout", 5, (1, 0), size=0.5, training=False),
    ]


def nearly_leaky_callables(generator: torch.Generator) -> list[Case]:
    """Causal, but the last digits of the outputs depend on later inputs, as in sums of another order."""
    cases = [
        tried(generator, f"rounding, largest output {scale:g}", num_tokens, 4, scale=scale, noise=3e-7)
        for scale, num_tokens in ((1.0, 5), (1e-3, 4), (1e4, 6), (30.0, 3))
    ]
    below = {"scale": -1.0, "amplitude": 1e-3, "noise": 3e-7}
    cases.append(tried(generator, "rounding, the largest output negative", 5, 3, **below))
    return [*cases, tried(generator, "no leak, but sudden changes", 5, 3, project=1e3 * normal(generator, 3, 8))]


def modules_in_both_modes(generator: torch.Generator) -> list[Case]:
    cases = []
    for training in (True, False):
        mode = "in training mode" if training else "in eval mode"
        for is_causal, about in ((True, "causal attention with dropout"), (False, "attention without a mask")):
            options = {"is_causal": is_causal, "dropout": 0.5}
            cases.append(tried(generator, f"{about}, {mode}", 6, 4, attention=options, training=training))
        cases.append(tried(generator, f"a causal module with dropout, {mode}", 4, 3, training=training))
    return in_any_order(generator, cases)


def observe_verdict(answer: Any, case: Case) -> Observation:
    """What the answer says about the case's callable."""
    return {case["about"]: attempt(lambda: answer(thing_to_try(case), case["d_in"], case["context_length"]))}


def mode_of(module: nn.Module) -> str:
    modes = {inner.training for inner in module.modules()}
    return "some of both" if len(modes) > 1 else "training" if True in modes else "eval"


def observe_modes(answer: Any, case: Case) -> Observation:
    """As ``observe_verdict``, and the state in which the answer leaves a module."""
    module = thing_to_try(case)
    x = torch.ones(1, case["context_length"], case["d_in"])
    before = outputs_with_seed(module, x)
    verdict = attempt(lambda: answer(module, case["d_in"], case["context_length"]))
    return {
        case["about"]: verdict,
        "mode_afterwards": mode_of(module),
        "module_unchanged": agree(outputs_with_seed(module, x), before),
    }


def outputs_with_seed(module: nn.Module, x: Tensor) -> Any:
    """What a module gives with known random numbers: its numbers, modes and settings all have a part in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return call_plainly(module, x)


# 3.4 ------------------------------------------------------------------------------------------------


def coins(generator: torch.Generator, *shape: int) -> Tensor:
    """A bool for each place, True more often than not."""
    return torch.rand(*shape, generator=generator) > 0.4


def weights_and_masks(generator: torch.Generator) -> list[Case]:
    table = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    return [
        {"weights": table, "keep_mask": torch.tensor([[True, True], [False, True]]), "p": 0.5},
        {"weights": normal(generator, 6, 6).softmax(-1), "keep_mask": coins(generator, 6, 6), "p": 0.2},
        {"weights": normal(generator, 4, 4).softmax(-1), "keep_mask": coins(generator, 4, 4), "p": 0.75},
    ]


def odd_weights_and_masks(generator: torch.Generator) -> list[Case]:
    cases = [
        {"weights": normal(generator, 2, 3, 5, 4), "keep_mask": coins(generator, 2, 3, 5, 4), "p": 0.1},
        {"weights": normal(generator, 2, 3, 3), "keep_mask": coins(generator, 2, 3, 3), "p": 0.4, "strided": True},
        {"weights": normal(generator, 1, 4, 4), "keep_mask": coins(generator, 1, 4, 4), "p": 0.0},
        {"weights": normal(generator, 3, 2, 2), "keep_mask": torch.ones(3, 2, 2).bool(), "p": 0.9, "strided": True},
        {"weights": normal(generator, 3, 5), "keep_mask": torch.zeros(3, 5).bool(), "p": 0.3},
        {"weights": normal(generator, 1, 1), "keep_mask": torch.ones(1, 1).bool(), "p": 0},
        {"weights": normal(generator, 7), "keep_mask": coins(generator, 7), "p": 0.99},
    ]
    return in_both_precisions(cases)


def two_weights_and_masks(generator: torch.Generator) -> list[Case]:
    cases = [
        {"weights": normal(generator, *shape), "keep_mask": coins(generator, *shape), "p": p}
        for shape, p in (((4, 4), 0.5), ((2, 3, 3), 0.25))
    ]
    return in_both_precisions(cases)


# 3.5 ------------------------------------------------------------------------------------------------


def attention_case(
    generator: torch.Generator,
    x_shape: tuple[int, int],
    sizes: tuple[int, int, int],
    qkv_bias: bool | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> Case:
    """A case of 3.5: ``x_shape`` is (B, T), ``sizes`` are d_in, d_out and context_length.

    The scores stay moderate, so that weights may also be zeroed and renormalised.
    """
    d_in, d_out, context_length = sizes
    arguments = {"d_in": d_in, "d_out": d_out, "context_length": context_length, "dropout": dropout}
    if qkv_bias is not None:
        arguments["qkv_bias"] = qkv_bias
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("W_query", "W_key", "W_value"):
        shapes[f"{name}.weight"] = (d_out, d_in)
        if qkv_bias:
            shapes[f"{name}.bias"] = (d_out,)
    return {
        "arguments": arguments,
        "parameters": {name: 0.6 * numbers for name, numbers in normal_parameters(generator, shapes).items()},
        "x": normal(generator, *x_shape, d_in).clamp(-2, 2),
        **more,
    }


def full_sequences(generator: torch.Generator) -> list[Case]:
    return [
        attention_case(generator, (2, 6), (3, 2, 6)),
        attention_case(generator, (3, 5), (4, 5, 5)),
        attention_case(generator, (4, 4), (4, 4, 4), by_name=True),
    ]


def shorter_sequences(generator: torch.Generator) -> list[Case]:
    cases = [
        attention_case(generator, (2, 3), (3, 4, 7), qkv_bias=True),
        attention_case(generator, (3, 3), (2, 5, 4), qkv_bias=True, by_name=True, strided=True),
        attention_case(generator, (1, 5), (3, 1, 6), qkv_bias=False, strided=True),
        attention_case(generator, (5, 1), (3, 3, 4)),
        attention_case(generator, (2, 1), (1, 2, 1)),
        attention_case(generator, (2, 4), (4, 4, 5), training=True),
        attention_case(generator, (2, 6), (2, 3, 6), dropout=0.7, by_name=True),
    ]
    return in_both_precisions(cases)


def module_arguments(generator: torch.Generator) -> list[Case]:
    return [
        attention_case(generator, (1, 1), (3, 2, 6)),
        attention_case(generator, (1, 1), (2, 5, 4), qkv_bias=True, dropout=0.1),
        attention_case(generator, (1, 1), (4, 4, 3), qkv_bias=False, by_name=True),
    ]


def one_hot_sequences(generator: torch.Generator) -> list[Case]:
    cases = []
    for num_tokens, p, by_name in ((5, 0.5, False), (6, 0.25, True)):
        d_in = num_tokens + 3  # the last ones always 0: no size should be mistaken for another
        sizes = (d_in, 2 * num_tokens, num_tokens + 1)
        case = attention_case(generator, (2, num_tokens), sizes, dropout=p, by_name=by_name, calls=40)
        case["x"] = torch.eye(num_tokens, d_in).repeat(2, 1, 1)  # (B, T, d_in)
        case["parameters"]["W_value.weight"] = F.pad(telling_values(num_tokens), (0, 3))
        for name in ("W_query.weight", "W_key.weight"):
            case["parameters"][name] = case["parameters"][name] / math.sqrt(num_tokens)  # no weight near zero
        cases.append(case)
    return cases


def too_long_sequences(generator: torch.Generator) -> list[Case]:
    cases = [
        attention_case(generator, (2, 5), (3, 2, 4)),
        attention_case(generator, (1, 9), (2, 2, 6), training=True),
        attention_case(generator, (3, 7), (4, 3, 1), qkv_bias=True, by_name=True),
    ]
    return [case | {"names": [str(case["x"].shape[1])]} for case in cases]


def two_attention_modules(generator: torch.Generator) -> list[Case]:
    cases = [
        attention_case(generator, (2, 4), (3, 2, 4), dropout=0.5),
        attention_case(generator, (1, 3), (2, 3, 5), qkv_bias=True),
    ]
    return in_both_precisions(cases)


PROBES = {
    "3.1": {
        "values": Probe(sequences, observe_without_loop),
        "any_input": Probe(odd_sequences, plainly),
        "manners": Probe(two_sequences, watched),
    },
    "3.2": {
        "values": Probe(score_tables, plainly),
        "any_input": Probe(odd_score_tables, plainly),
        "extremes": Probe(extreme_score_tables, observe_extremes),
        "manners": Probe(two_score_tables, watched),
    },
    "3.3": {
        "values": Probe(plain_callables, observe_verdict),
        "leaks": Probe(leaky_callables, observe_verdict),
        "rounding": Probe(nearly_leaky_callables, observe_verdict),
        "modes": Probe(modules_in_both_modes, observe_modes),
    },
    "3.4": {
        "values": Probe(weights_and_masks, plainly),
        "any_input": Probe(odd_weights_and_masks, plainly),
        "manners": Probe(two_weights_and_masks, watched),
    },
    "3.5": {
        "values": Probe(full_sequences, observe_output),
        "structure": Probe(module_arguments, observe_buffers),
        "any_input": Probe(shorter_sequences, observe_after_shorter),
        "dropout": Probe(one_hot_sequences, observe_dropout),
        "error": Probe(too_long_sequences, observe_refusal),
        "manners": Probe(two_attention_modules, observe_manners),
    },
}
