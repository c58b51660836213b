"""How to try the answers of chapter 8.

Legend: B batch, T tokens, H heads, D head size, d_in and d_out features, V vocabulary size, d channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from utils.checks.probes.chapter04 import (
    Arguments,
    StandIn,
    arguments_for,
    in_turns,
    module_case,
    multi_head_shapes,
)
from utils.checks.probes.modules import normal_parameters
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    Raised,
    RandomStates,
    agree,
    attempt,
    identical,
    laid_out,
    load_parameters,
    normal,
    to_data,
)
from utils.gpt_config import GPTConfig
from utils.normalizers import SoftmaxNormalizer


def drawn_size(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# 8.1 ------------------------------------------------------------------------------------------------


class WorkingStandIn(StandIn):
    """A module that does what the contract of 4.4 says, the error for long inputs included.

    As ``utils.attention.MultiHeadAttention`` it takes a cache with ``length`` and ``append``, for those who
    built one before.
    """

    def __init__(self, arguments: Arguments):
        super().__init__(arguments, note=[].append)
        self.normalizer, self.fused = SoftmaxNormalizer(), False

    def heads(self, x: Tensor) -> Tensor:
        """(..., T, d_out) -> (..., H, T, D)"""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(-3, -2)

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        """(..., T, d_in) -> (..., T, d_out); with a cache, ``x`` continues the tokens that it holds."""
        held = 0 if cache is None else cache.length
        end = held + x.shape[-2]
        if end > self.context_length:
            raise ValueError(f"the sequence has {end} tokens, but context_length is {self.context_length}")
        queries, keys, values = (self.heads(layer(x)) for layer in (self.W_query, self.W_key, self.W_value))
        if cache is not None:
            keys, values = cache.append(keys, values)
        scores = queries @ keys.mT / self.head_dim**0.5  # (..., H, T, end)
        scores = scores.masked_fill(self.mask[held:end, :end], float("-inf"))
        contexts = self.dropout(torch.softmax(scores, dim=-1)) @ values  # (..., H, T, D)
        return self.out_proj(contexts.transpose(-3, -2).flatten(-2))


def sequence_case(
    generator: torch.Generator, batch_size: int, num_tokens: int, arguments: Arguments, **more: Any
) -> Case:
    """A module and a sequence (B, T, d_in) that it takes token by token."""
    return module_case(generator, multi_head_shapes, batch_size, num_tokens, arguments, **more)


def sequences(generator: torch.Generator) -> list[Case]:
    return [
        sequence_case(generator, 2, 4, arguments_for(3, 6, 6, 3, dropout=0.2)),
        sequence_case(generator, 3, 5, arguments_for(5, 8, 5, 2, qkv_bias=True, dropout=0.1)),
        sequence_case(generator, 2, 3, arguments_for(3, 9, 4, 3)),
    ]


def odd_sequences(generator: torch.Generator) -> list[Case]:
    cases = [
        sequence_case(generator, 4, 2, arguments_for(4, 3, 7, 1, True), strided=True),
        sequence_case(generator, 1, 5, arguments_for(3, 8, 9, 4, False), by_name=True),
        sequence_case(generator, 2, 1, arguments_for(2, 6, 1, 3, True)),
        sequence_case(generator, 2, 3, arguments_for(5, 5, 3, 5), strided=True),
        sequence_case(generator, 3, 8, arguments_for(2, 2, 8, 2, True), strided=True),
    ]
    return in_turns(cases)


def wide_sequences(generator: torch.Generator) -> list[Case]:
    """Inputs so wide that projecting a token costs far more than attending to it."""
    cases = [
        sequence_case(generator, b, 5, arguments_for(256, 32, t_max, num_heads, dropout=0.2))
        for b, t_max, num_heads in ((1, 8, 4), (2, 5, 2))
    ]
    for case in cases:  # moderate scores: every token has a part in the result
        case["parameters"] = {name: parameter / 10 for name, parameter in case["parameters"].items()}
    return cases


def several_sequences(generator: torch.Generator) -> list[Case]:
    """Two sequences for one module, with other batch sizes, and one for another module."""
    cases = [
        sequence_case(generator, 2, 4, arguments_for(3, 6, 5, 3, None, 0.2)),
        sequence_case(generator, 1, 3, arguments_for(2, 4, 3, 2, True, 0.2)),
    ]
    for case in cases:
        d_in = case["arguments"]["d_in"]
        case["second"] = normal(generator, len(case["x"]) + 1, case["x"].shape[1], d_in)
        case["other_parameters"] = {name: 0.5 * p.flip(0) for name, p in case["parameters"].items()}
    return in_turns(cases)


def full_sequences(generator: torch.Generator) -> list[Case]:
    """As many tokens as the module takes and one more; lengths that are no other size of the case."""
    return [
        sequence_case(generator, b, t + 1, arguments_for(3, 4, t, 2), lengths=[str(t), str(t + 1)])
        for b, t in ((1, 10), (2, 9))
    ]


def stand_in(case: Case, parameters: str = "parameters") -> nn.Module:
    """A module in eval mode with the case's parameters."""
    return load_parameters(WorkingStandIn(case["arguments"]), case[parameters]).eval()


def made(answer: Any, mha: nn.Module, case: Case) -> Any:
    return answer(mha=mha) if case.get("by_name") else answer(mha)


def tokens_of(x: Tensor, strided: bool = False) -> list[Tensor]:
    """(B, T, d_in) -> T tensors (B, 1, d_in) with memory of their own, in another order if ``strided``."""
    return [laid_out(token, strided).unsqueeze(1) for token in x.unbind(1)]


@torch.no_grad()
def observe_steps(answer: Any, case: Case) -> Observation:
    """What each step returns, looked at when all are done: a later step must not change an earlier result."""
    cached = made(answer, stand_in(case), case)
    return {
        "steps": attempt(lambda: [cached.step(token) for token in tokens_of(case["x"], case.get("strided", False))])
    }


class Work(TorchDispatchMode):
    """While active, counts multiplications and other results of single numbers, roughly.

    Looks beneath autograd, so it doesn't matter by which functions, modules or copies of weights they are made.
    """

    PRODUCTS = frozenset({"mm", "bmm", "mv", "dot"})
    SUMS = frozenset({"addmm", "baddbmm", "addmv"})  # products that are added to their first argument

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first call imports PyTorch's compiler, which takes more than a second

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode `einsum` and others arrive whole: look into them
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if isinstance(result, Tensor):
            matrix = args[name in self.SUMS] if name in self.PRODUCTS | self.SUMS else None
            self.done += result.numel() * (1 if matrix is None else matrix.shape[-1])
        return result


def projects_again(answer: Any, case: Case, layer: str) -> bool:
    """Whether the last step shows keys or values of earlier tokens by weights that were changed just before it.

    It makes no difference whether the newest token meets the new weights or a copy of the old ones.
    """
    mha = stand_in(case)
    cached = made(answer, mha, case)
    *earlier, last = tokens_of(case["x"])
    for token in earlier:
        cached.step(token)
    mha.get_submodule(layer).weight.neg_()
    return agree(to_data(cached.step(last)), mha(case["x"])[:, -1:])


@torch.no_grad()
def observe_work(answer: Any, case: Case) -> Observation:
    """Whether a later step does no more than attend to more tokens: projecting them again takes far more.

    What bypasses PyTorch is not counted, but shows when the weights change.
    """
    cached = made(answer, stand_in(case), case)
    batch_size, d_in, d_out = len(case["x"]), case["arguments"]["d_in"], case["arguments"]["d_out"]

    def projects_once() -> bool:
        work = []
        for token in tokens_of(case["x"]):
            with Work() as counted:
                cached.step(token)
            work.append(counted.done)
        growth = (work[-1] - work[1]) / (len(work) - 2)  # per token that is remembered
        grows_little = growth < batch_size * d_in * d_out / 2  # half of what its key alone would take
        return grows_little and not any(projects_again(answer, case, layer) for layer in ("W_key", "W_value"))

    return {"one_new_key_per_step": attempt(projects_once)}


@torch.no_grad()
def observe_several(answer: Any, case: Case) -> Observation:
    """Sequences one after another and side by side, and what else is touched."""
    mha, other = stand_in(case), stand_in(case, "other_parameters")
    first, second = tokens_of(case["x"]), tokens_of(case["second"])
    kept, whole, states = to_data(first + second), mha(case["x"]), RandomStates()
    cached, neighbour, stranger = (answer(module) for module in (mha, mha, other))

    def run(*steps: tuple[Any, Tensor]) -> Any:
        return attempt(lambda: [each.step(token) for each, token in steps])

    cached.reset()  # nothing to forget yet
    results = {"before_reset": run(*((cached, token) for token in first[:2]))}
    cached.reset()
    results["after_reset"] = run(*((cached, token) for token in second))
    cached.reset()
    cached.reset()
    both = zip(first, second, strict=True)
    results["side_by_side"] = run(
        *((each, token) for a, b in both for each, token in ((cached, a), (neighbour, b), (stranger, a)))
    )
    seen: Observation = {
        "inputs_unchanged": all(identical(now, before) for now, before in zip(first + second, kept, strict=True)),
        **states.unchanged(),
        "mha_unchanged": not any(module.training for module in mha.modules())
        and all(identical(mha.get_parameter(name), given) for name, given in case["parameters"].items())
        and agree(attempt(lambda: mha(case["x"])), whole),
    }
    cached.reset()
    place = torch.empty_like(first[0])  # one tensor that holds each token in turn
    results["from_one_place"] = attempt(lambda: [cached.step(place.copy_(token)) for token in first])
    return seen | results


@torch.no_grad()
def observe_overflow(answer: Any, case: Case) -> Observation:
    """The error of the token after the last; before it, and after the next reset, every step works."""
    cached = made(answer, stand_in(case), case)
    *allowed, last = tokens_of(case["x"])
    seen: Observation = {"steps": attempt(lambda: [cached.step(token) for token in allowed])}
    seen["error"] = attempt(lambda: cached.step(last))
    seen["after_the_error"] = attempt(lambda: (cached.reset(), cached.step(last))[1])
    return seen


# 8.2 and 8.4 ----------------------------------------------------------------------------------------


def drawn_config(generator: torch.Generator, **fixed: Any) -> dict[str, Any]:
    """Sizes of a small model, all of them drawn that are not given."""
    n_heads = drawn_size(generator, 2, 5)
    drawn = {
        "vocab_size": drawn_size(generator, 40, 90),
        "context_length": drawn_size(generator, 12, 30),
        "emb_dim": n_heads * drawn_size(generator, 2, 7),
        "n_heads": n_heads,
        "n_layers": drawn_size(generator, 2, 6),
        "drop_rate": 0.1,
        "qkv_bias": drawn_size(generator, 0, 1) == 1,
    }
    return drawn | fixed


def caches(generator: torch.Generator) -> list[Case]:
    """Configuration, batch size, length and bytes per value; no two of the sizes alike."""
    return [
        {
            "cfg": drawn_config(generator),
            "batch_size": batch_size,
            "length": drawn_size(generator, 5, 11),
            "bytes_per_value": bytes_per_value,
        }
        for batch_size, bytes_per_value in ((3, 4), (5, 2), (7, 4))
    ]


def odd_caches(generator: torch.Generator) -> list[Case]:
    sizes = [(1, 1, 8), (4, 6, 2), (1, 20, 1), (64, 9, 4)]
    cases = [
        {"cfg": drawn_config(generator), "batch_size": b, "length": length, "bytes_per_value": bytes_per_value}
        for b, length, bytes_per_value in sizes
    ]
    cases[2]["cfg"]["context_length"] = 20  # all of the context
    cases[3]["cfg"] |= {"n_layers": 1, "n_heads": 1, "qkv_bias": True}
    gpt2_xl = {"context_length": 1024, "emb_dim": 1600, "n_heads": 25, "n_layers": 48}
    large = {"cfg": drawn_config(generator, **gpt2_xl), "batch_size": 512, "length": 1023, "bytes_per_value": 2}
    return [*cases, large]


def too_long_for_caches(generator: torch.Generator) -> list[Case]:
    return [
        {
            "cfg": drawn_config(generator, context_length=context_length),
            "batch_size": 2,
            "length": length,
            "bytes_per_value": 4,
            "names": [str(length)],
        }
        for context_length, length in ((31, 32), (1024, 1537), (1, 11))
    ]


def costs(answer: Any, case: Case) -> Any:
    """What the answer says about the case's configuration, with the case's other sizes in order."""
    sizes = [case[name] for name in ("batch_size", "length", "bytes_per_value") if name in case]
    return attempt(lambda: answer(GPTConfig(**case["cfg"]), *sizes))


def observe_costs(answer: Any, case: Case) -> Observation:
    states = RandomStates()
    return {"result": costs(answer, case), **states.unchanged()}


def observe_refusal(answer: Any, case: Case) -> Observation:
    return {"error": costs(answer, case)}


def configs(generator: torch.Generator) -> list[Case]:
    return [{"cfg": drawn_config(generator)} for _ in range(3)]


def odd_configs(generator: torch.Generator) -> list[Case]:
    special: list[dict[str, Any]] = [
        {"n_layers": 1, "qkv_bias": True},
        {"n_heads": 1, "context_length": 1, "qkv_bias": False},
        {"vocab_size": 7, "context_length": 250},
        {"vocab_size": 2003, "tied": True, "drop_rate": 0.0},
    ]
    return [{"cfg": drawn_config(generator, **fixed)} for fixed in special]


# 8.3 ------------------------------------------------------------------------------------------------


class RowModel(nn.Module):
    """model(x, y) -> (logits, loss): the loss is the mean over the rows, but not the cross-entropy of the logits.

    Every token of a row has a part in its loss, by its position.
    """

    def __init__(self, vocab_size: int, width: int, note: Callable[[tuple[int, bool]], None]):
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.mix = nn.Linear(width, width)
        self.note = note  # the method of a list: a deep copy of the module still writes into the same list
        self.gives_logits = True

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, T), (B, T) -> (B, T, V) or None, and a number."""
        self.note((len(x), self.training))
        embedded = torch.tanh(self.mix(self.table(x)))  # (B, T, d)
        places = torch.linspace(0.5, 2.0, x.shape[1], dtype=embedded.dtype)[:, None]  # (T, 1)
        error = (places * (embedded - self.table(y))).mean(dim=1)  # (B, T, d) -> (B, d)
        loss = error.square().sum(dim=-1).mean()
        return self.table(x) @ self.table.weight.T if self.gives_logits else None, loss


def shapes_of_row_model(vocab_size: int, width: int) -> dict[str, tuple[int, ...]]:
    return {"table.weight": (vocab_size, width), "mix.weight": (width, width), "mix.bias": (width,)}


def batch_case(generator: torch.Generator, sizes: tuple[int, int, int, int, int], **more: Any) -> Case:
    """A model and a batch for it; ``sizes``: rows, tokens, rows per forward pass, vocabulary, width."""
    b, t, micro_batch_size, vocab_size, width = sizes
    x, y = torch.randint(vocab_size, (2, b, t), generator=generator)
    return {
        "x": x,
        "y": y,
        "micro_batch_size": micro_batch_size,
        "parameters": normal_parameters(generator, shapes_of_row_model(vocab_size, width)),
        **more,
    }


def even_batches(generator: torch.Generator) -> list[Case]:
    sizes = [(4, 3, 2, 7, 4), (6, 5, 2, 5, 3), (9, 2, 3, 8, 2)]
    return [batch_case(generator, row) for row in sizes]


def odd_batches(generator: torch.Generator) -> list[Case]:
    """A last part with fewer rows, one part only, one row per part."""
    sizes = [(5, 3, 2, 7, 4), (7, 4, 3, 5, 3), (8, 2, 5, 9, 2), (3, 4, 8, 6, 3), (4, 5, 4, 5, 2), (5, 1, 1, 4, 3)]
    cases = [batch_case(generator, row, strided=i % 2 == 1) for i, row in enumerate([*sizes, (1, 4, 1, 5, 2)])]
    cases[0]["without_logits"] = True
    return in_turns(cases)


def batches_of_both_kinds(generator: torch.Generator) -> list[Case]:
    sizes = [(4, 3, 2, 7, 4), (5, 4, 2, 5, 3), (7, 2, 4, 8, 2)]
    return in_turns([batch_case(generator, row) for row in sizes])


def batches_with_gradients(generator: torch.Generator) -> list[Case]:
    """Gradients that are there before: of all parameters, or of one."""
    cases = batches_of_both_kinds(generator)
    for i, case in enumerate(cases):
        names = list(case["parameters"])[: (3, 3, 1)[i]]
        case["before"] = {name: normal(generator, *case["parameters"][name].shape) for name in names}
    return in_turns(cases)


Notes = list[tuple[int, bool]]  # of each forward pass: how many rows, and whether in training mode


def row_model(case: Case) -> tuple[RowModel, Notes]:
    """A model in training mode with the case's parameters and gradients, and the notes of its calls."""
    notes: Notes = []
    model = RowModel(*case["parameters"]["table.weight"].shape, notes.append)
    load_parameters(model, case["parameters"]).train()
    model.gives_logits = not case.get("without_logits", False)
    for name, gradient in case.get("before", {}).items():
        model.get_parameter(name).grad = gradient.clone()
    return model, notes


def accumulated(answer: Any, model: RowModel, case: Case) -> Any:
    given = [laid_out(case[name], case.get("strided", False)) for name in ("x", "y")]
    return attempt(lambda: answer(model, *given, case["micro_batch_size"]))


def gradients_in(model: nn.Module) -> dict[str, Any]:
    return {name: to_data(parameter.grad) for name, parameter in model.named_parameters()}


def observe_accumulation(answer: Any, case: Case) -> Observation:
    """The gradients and how they came about; of what is returned, only whether it is a number."""
    model, notes = row_model(case)
    result = accumulated(answer, model, case)
    is_number = isinstance(result, int | float | Tensor)
    return {
        "returns_a_number": result if isinstance(result, Raised) else is_number,
        "rows_within_limit": all(rows <= case["micro_batch_size"] for rows, _ in notes),
        "accumulated": gradients_in(model),
    }


def observe_loss(answer: Any, case: Case) -> Observation:
    return {"result": accumulated(answer, row_model(case)[0], case)}


def observe_addition(answer: Any, case: Case) -> Observation:
    """Two calls upon gradients that are there already, and what else is touched."""
    model, notes = row_model(case)
    x, y, states = case["x"].clone(), case["y"].clone(), RandomStates()
    result = attempt(lambda: answer(model, x, y, case["micro_batch_size"]))
    seen: Observation = {
        "returns_a_number": result if isinstance(result, Raised) else True,
        "accumulated": gradients_in(model),
        "inputs_unchanged": identical(x, case["x"]) and identical(y, case["y"]),
        **states.unchanged(),
        "parameters_unchanged": all(identical(model.get_parameter(n), p) for n, p in case["parameters"].items()),
        "mode_unchanged": model.training and all(training for _, training in notes),
    }
    accumulated(answer, model, case | {"x": case["y"], "y": case["x"]})
    return seen | {"after_two_calls": gradients_in(model)}


PROBES = {
    "8.1": {
        "values": Probe(sequences, observe_steps),
        "cache": Probe(wide_sequences, observe_work),
        "any_input": Probe(odd_sequences, observe_steps),
        "several": Probe(several_sequences, observe_several),
        "length_error": Probe(full_sequences, observe_overflow),
    },
    "8.2": {
        "values": Probe(caches, observe_costs),
        "any_input": Probe(odd_caches, observe_costs),
        "length_error": Probe(too_long_for_caches, observe_refusal),
    },
    "8.3": {
        "values": Probe(even_batches, observe_accumulation),
        "loss": Probe(batches_of_both_kinds, observe_loss),
        "any_input": Probe(odd_batches, observe_accumulation),
        "manners": Probe(batches_with_gradients, observe_addition),
    },
    "8.4": {
        "values": Probe(configs, observe_costs),
        "any_input": Probe(odd_configs, observe_costs),
    },
}
