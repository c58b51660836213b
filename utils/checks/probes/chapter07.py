"""How to try the answers of chapter 7. Legend: B batch, T tokens, V vocabulary size."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.checks.probes.chapter05 import Draws, same, seeded, some_seed
from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    Raised,
    RandomStates,
    Strange,
    attempt,
    call_plainly,
    gradients_of,
    identical,
    in_both_precisions,
    laid_out,
    normal,
    plainly,
    to_data,
    watched,
)

MANY_ROWS = 600  # draws of one distribution, enough to see a token that is favoured


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number between the two."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def as_number(value: Any) -> Any:
    """What counts as one number, as a float: NumPy's numbers and 0-d tensors, too; else the value as data."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex():
        return float(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else to_data(value)


# 7.1 ------------------------------------------------------------------------------------------------


def guesses(generator: torch.Generator, *shape: int) -> Case:
    """Logits (..., V) and targets (...), of which none is the likeliest by design."""
    return {
        "logits": 2 * normal(generator, *shape),
        "targets": torch.randint(shape[-1], shape[:-1], generator=generator),
    }


def lists_of_guesses(generator: torch.Generator) -> list[Case]:
    return [guesses(generator, *shape) for shape in ((4, 5), (2, 3, 7), (3, 3, 3), (6,))]


def odd_guesses(generator: torch.Generator) -> list[Case]:
    shapes = ((1, 9), (2, 3, 2, 5), (4, 1, 3), (1, 6, 4), (5, 1), (2, 2, 1, 3, 4))
    cases = [guesses(generator, *shape) for shape in shapes]
    return [*in_both_precisions(cases), *(case | {"strided": True} for case in cases)]


def extreme_guesses(generator: torch.Generator) -> list[Case]:
    """Logits of up to ±1e4. The means are large, or exactly 0: there float32 leaves no room for rounding."""
    cases = []
    for shape in ((3, 4), (2, 3, 5), (7,)):
        targets = torch.randint(shape[-1], shape[:-1], generator=generator)
        size = uniform(generator, 9000, 10_000)
        right = -size * torch.nn.functional.one_hot(targets, shape[-1]).float()  # the right one 9000 and more behind
        every_other_row = torch.arange(targets.numel()).reshape(targets.shape)[..., None] % 2
        cases += [
            {"logits": right, "targets": targets},
            {"logits": right + size * every_other_row, "targets": targets},  # rows of which one lies far above
            {"logits": right + size, "targets": targets},
            {"logits": 2 * right + size, "targets": targets},
            {"logits": -2 * right - size, "targets": targets},  # all sure, all right
        ]
    return in_both_precisions(cases)


def observe_extremes(answer: Any, case: Case) -> Observation:
    """The result, and whether the way back is finite as well; its numbers depend on how float32 was rounded."""
    logits, raw = case["logits"].clone().requires_grad_(), []
    stopped = attempt(lambda: raw.append(answer(logits * 1, case["targets"].clone())))
    if stopped is not None:
        return {"result": stopped}
    gradients = attempt(lambda: gradients_of(raw[0], [logits]))
    found = [g for g in gradients if g is not None] if isinstance(gradients, list) else []
    return {"result": to_data(raw[0]), "gradient_is_finite": all(bool(g.isfinite().all()) for g in found)}


# 7.2 ------------------------------------------------------------------------------------------------


def losses(generator: torch.Generator) -> list[Case]:
    drawn = [{"loss": 1 + normal(generator, 4).abs()[i]} for i in range(2)]  # 0-d, as a loss is
    drawn += [{"loss": 1 + normal(generator, *size).abs()} for size in ((3,), (2, 3), (1,))]
    return [*in_both_precisions(drawn), {"loss": torch.tensor(0.0)}]


def plain_losses(generator: torch.Generator) -> list[Case]:
    return [{"loss": loss} for loss in (0.0, *(uniform(generator, low, low + 2) for low in (0.1, 0.5, 2.0, 8.0)))]


def observe_tensor_loss(answer: Any, case: Case) -> Observation:
    """As ``watched``, and for numbers with gaps in memory."""
    return watched(answer, case) | {"with_gaps_in_memory": call_plainly(answer, case["loss"], strided=True)}


# 7.3 ------------------------------------------------------------------------------------------------


class Log:
    """What a model writes down when it is called. A copy of the model writes into the same one."""

    def __init__(self) -> None:
        self.calls: list[tuple[set[str], bool]] = []  # modules in training mode; did anything ask for a gradient

    def __deepcopy__(self, memo: dict) -> "Log":
        return self


class Surprised(nn.Module):
    """A model whose loss has nothing to do with its logits, and which knows how it was called.

    Args:
        table: (V, V), the loss of each pair of input and target.
        stops_at: the number of the call that ends in an error.
    """

    def __init__(self, table: Tensor, stops_at: int = 0):
        super().__init__()
        self.table = nn.Parameter(table.clone())
        self.dropout = nn.Dropout(0.5)
        self.inner = nn.Sequential(nn.ReLU(), nn.Dropout(0.1))
        self.log, self.stops_at = Log(), stops_at

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits = torch.zeros(*idx.shape, len(self.table)) + 0 * self.table.sum()
        loss = None if targets is None else self.table[idx, targets].mean()
        asked = logits.requires_grad and torch.is_grad_enabled()
        self.log.calls.append(({name for name, module in self.named_modules() if module.training}, asked))
        if len(self.log.calls) == self.stops_at:
            raise RuntimeError("the model stops here")
        return logits, loss


class Once:
    """An iterable without a length that can be gone through once."""

    def __init__(self, items: list[Any]):
        self.items = iter(items)

    def __iter__(self) -> Iterator[Any]:
        return self.items


def breaking_off(items: list[Any]) -> Iterator[Any]:
    """All items but the last; in its place comes an error."""
    yield from items[:-1]
    raise OSError("the data can't be read")


ITERABLES: dict[str, Callable[[list[Any]], Iterable[Any]]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda items: (item for item in items),
    "iterator": iter,
    "once": Once,
    "lists": lambda items: [list(item) for item in items],  # as a DataLoader gives them
    "breaking off": breaking_off,
}
MODES = {  # module name -> training
    "training": {"": True, "dropout": True, "inner": True, "inner.0": True, "inner.1": True},
    "eval": {"": False, "dropout": False, "inner": False, "inner.0": False, "inner.1": False},
    "one frozen": {"": True, "dropout": False, "inner": True, "inner.0": True, "inner.1": True},
    "one awake": {"": False, "dropout": False, "inner": False, "inner.0": False, "inner.1": True},
    "half": {"": True, "dropout": True, "inner": False, "inner.0": False, "inner.1": False},
}


def evaluation(generator: torch.Generator, shapes: list[tuple[int, int]], iterable: str = "list", **more: Any) -> Case:
    """A model's table and batches of these shapes, of which some are worse than others."""
    vocab_size = 6
    table = 2 + normal(generator, vocab_size, vocab_size) + torch.arange(vocab_size)[:, None]
    pairs = []
    for number, shape in enumerate(shapes):
        x = torch.randint(vocab_size, shape, generator=generator) * (number + 1) // len(shapes)
        pairs.append((x, torch.randint(vocab_size, shape, generator=generator)))
    return {"table": table, "batches": pairs, "iterable": iterable, "mode": "eval"} | more


def even_batches(generator: torch.Generator) -> list[Case]:
    return [evaluation(generator, [shape] * count) for shape, count in (((2, 3), 3), ((4, 1), 2), ((1, 5), 1))]


def ragged_batches(generator: torch.Generator) -> list[Case]:
    kinds = ("list", "generator", "iterator", "once", "tuple", "lists")
    shapes: list[list[tuple[int, int]]] = [[(2, 3), (4, 3), (1, 3)], [(2, 2), (2, 5), (2, 1)], [(3, 1), (1, 4)]]
    cases = [evaluation(generator, shapes[i % 3], kind) for i, kind in enumerate(kinds)]
    return [*cases, cases[1] | {"table": cases[1]["table"].double()}, evaluation(generator, [(1, 1)], "generator")]


def all_modes(generator: torch.Generator) -> list[Case]:
    return [evaluation(generator, [(2, 3), (1, 2)], mode=mode) for mode in MODES]


def modes_and_errors(generator: torch.Generator) -> list[Case]:
    """Every mode, each ending well, with an error in the model, one in the data, and without data."""
    well = all_modes(generator)
    stops = [case | {"stops_at": 2} for case in well]
    breaks = [case | {"iterable": "breaking off"} for case in well]
    empty = [case | {"batches": []} for case in well]
    return well + stops + breaks + empty


def nothing_to_estimate(generator: torch.Generator) -> list[Case]:
    return [evaluation(generator, [], kind) for kind in ("list", "generator", "tuple", "once")]


def stand_in(case: Case) -> Surprised:
    """The case's model, in the case's mode."""
    model = Surprised(case["table"], case.get("stops_at", 0))
    for name, mode in MODES[case["mode"]].items():
        model.get_submodule(name).training = mode
    return model


def estimated(answer: Any, case: Case, model: Surprised) -> Any:
    """The estimate for the case's batches, as data."""
    pairs = [(x.clone(), y.clone()) for x, y in case["batches"]]
    return attempt(lambda: answer(model, ITERABLES[case["iterable"]](pairs)))


def observe_estimate(answer: Any, case: Case) -> Observation:
    return {"result": estimated(answer, case, stand_in(case))}


def observe_inside(answer: Any, case: Case) -> Observation:
    """In which state the model was called."""
    model = stand_in(case)
    result = estimated(answer, case, model)
    if isinstance(result, Raised):
        return {"raised": result}
    training, asked = ([call[i] for call in model.log.calls] for i in (0, 1))
    return {
        "called": bool(model.log.calls),
        "in_training_mode": sorted(set().union(*training)),
        "without_gradient": not any(asked),
    }


def observe_afterwards(answer: Any, case: Case) -> Observation:
    """What is left of the model's modes, its parameters, the batches and the global states."""
    model, states = stand_in(case), RandomStates()
    pairs = [(x.clone(), y.clone()) for x, y in case["batches"]]
    outcome = attempt(lambda: answer(model, ITERABLES[case["iterable"]](pairs)))
    with_gradient = torch.is_grad_enabled()
    return {
        "outcome": outcome,
        "modes": [module.training for module in model.modules()],
        "gradients_on_again": with_gradient and all(p.requires_grad for p in model.parameters()),
        "model_as_before": identical(model.table, case["table"]) and model.table.grad is None,
        "inputs_unchanged": all(same([*a], [*b]) for a, b in zip(pairs, case["batches"], strict=True)),
        **states.unchanged(),
    }


def observe_no_batch(answer: Any, case: Case) -> Observation:
    return {"error": estimated(answer, case, stand_in(case))}


# 7.4 ------------------------------------------------------------------------------------------------


def schedule(generator: torch.Generator, warmup_steps: int, max_steps: int, steps: list[int], **more: float) -> Case:
    max_lr = uniform(generator, 0.5, 2.0)
    case = {"max_lr": max_lr, "min_lr": max_lr * uniform(generator, 0.05, 0.4)}
    return case | {"warmup_steps": warmup_steps, "max_steps": max_steps, "steps": steps} | more


def warm_ups(generator: torch.Generator) -> list[Case]:
    return [
        schedule(generator, 8, 40, [0, 1, 3, 5, 7]),
        schedule(generator, 5, 9, [0, 2, 4]),
        schedule(generator, 100, 1000, [0, 1, 50, 99]),
    ]


def decays(generator: torch.Generator) -> list[Case]:
    return [
        schedule(generator, 8, 40, [8, 9, 16, 24, 31, 39, 40]),
        schedule(generator, 3, 10, [3, 4, 6, 9, 10]),
        schedule(generator, 100, 1100, [100, 101, 350, 600, 850, 1099, 1100]),
    ]


def after_the_end(generator: torch.Generator) -> list[Case]:
    return [
        schedule(generator, 8, 40, [41, 56, 72, 1000]),
        schedule(generator, 3, 10, [11, 17, 24, 10**6]),
    ]


def odd_schedules(generator: torch.Generator) -> list[Case]:
    small = uniform(generator, 3e-4, 6e-4)
    return [
        schedule(generator, 0, 20, [0, 1, 5, 10, 19, 20, 21]),
        schedule(generator, 1, 7, [0, 1, 2, 5, 7, 8]),
        schedule(generator, 4, 5, [0, 3, 4, 5, 6]),
        schedule(generator, 6, 30, [0, 3, 6, 18, 30, 31], min_lr=0.0),
        schedule(generator, 6, 30, [0, 3, 6, 18, 30, 31], max_lr=0.75, min_lr=0.75),
        schedule(generator, 2000, 600_000, [0, 7, 1999, 2000, 12_345, 600_000], max_lr=small, min_lr=small / 10),
        schedule(generator, 3, 12, [11, 2, 5, 0, 12, 7], max_lr=3e-6, min_lr=1e-6),  # not in order
    ]


def observe_rates(answer: Any, case: Case) -> Observation:
    others, states = [case[name] for name in ("max_lr", "min_lr", "warmup_steps", "max_steps")], RandomStates()
    rates = [attempt(lambda step=step: as_number(answer(step, *others))) for step in case["steps"]]
    if all(isinstance(rate, Raised) for rate in rates):
        return {"raised": rates[0]}
    return {"rates": rates, **states.unchanged()}


# 7.5 ------------------------------------------------------------------------------------------------


class Ordinary(nn.Module):
    """What a small language model consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(5, 4)
        self.norm1 = nn.LayerNorm(4)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.out_head = nn.Linear(4, 5, bias=False)


class OddNames(nn.Module):
    """Parameters whose names and modules say nothing about their dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_bias = nn.Parameter(torch.zeros(3, 3))
        self.weight = nn.Parameter(torch.zeros(3))
        self.temperature = nn.Parameter(torch.zeros(()))
        self.norm_of_rows = nn.Linear(2, 3)
        self.embedding_shift = nn.Parameter(torch.zeros(1))
        self.conv = nn.Conv1d(2, 3, 2)
        self.column = nn.Parameter(torch.zeros(4, 1))
        self.batch = nn.BatchNorm1d(3)
        self.many = nn.ParameterList([torch.zeros(2), torch.zeros(1, 1, 1, 2), torch.zeros(1, 1)])
        self.deep = nn.ModuleDict({"bias": nn.Sequential(nn.Sequential(nn.Embedding(2, 2), nn.LayerNorm(2)))})


class Tied(Ordinary):
    """The head uses the embedding's matrix, two norms share their scale, and one layer occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.out_head.weight = self.tok_emb.weight
        self.norm2 = nn.LayerNorm(4)
        self.norm2.weight = self.norm1.weight
        self.layers.append(self.layers[0])


class Frozen(Ordinary):
    """One matrix, one vector and one whole layer are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_emb.requires_grad_(False)
        self.norm1.bias.requires_grad_(False)
        self.layers[2].requires_grad_(False)


class TiedAndFrozen(Tied):
    """The matrix that is used twice is not trained either."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_emb.weight.requires_grad_(False)


MODELS = {
    "ordinary": Ordinary,
    "linear": lambda: nn.Linear(3, 2),
    "odd names": OddNames,
    "tied": Tied,
    "frozen": Frozen,
    "tied and frozen": TiedAndFrozen,
}


def models(generator: torch.Generator, *kinds: str) -> list[Case]:
    return [{"model": kind, "weight_decay": uniform(generator, 0.02, 0.5)} for kind in kinds]


def observe_groups(answer: Any, case: Case) -> Observation:
    """For each group its weight decay and the names of its parameters; whether AdamW takes them."""
    model = MODELS[case["model"]]()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    made: list[Any] = []
    states = RandomStates()
    stopped = attempt(lambda: made.append(answer(model, case["weight_decay"])))
    if stopped is not None:
        return {"raised": stopped}
    groups: list[Any] = []
    stopped = attempt(lambda: groups.extend(made[0])) if isinstance(made[0], Iterable) else to_data(made[0])
    if not isinstance(made[0], Iterable) or isinstance(stopped, Raised):
        return {"groups": stopped}
    if not all(isinstance(group, dict) for group in groups):
        return {"groups": [to_data(group) for group in groups]}
    groups = [with_list_of_parameters(group) for group in groups]
    return {
        "groups": [
            [
                as_number(group["weight_decay"]) if "weight_decay" in group else "missing",
                [names.get(id(p), Strange(type(p).__name__)) for p in group["params"]],
            ]
            for group in groups
        ],
        "optimizer": attempt(lambda: torch.optim.AdamW(groups) and None),
        "model_as_before": trainable == [parameter.requires_grad for parameter in model.parameters()]
        and same([parameter.detach() for parameter in model.parameters()], before),
        **states.unchanged(),
    }


def with_list_of_parameters(group: dict) -> dict:
    """The group, with what an iterator would give only once; a set stays, AdamW refuses it."""
    params = group.get("params", ())
    if isinstance(params, Tensor):
        return {**group, "params": [params]}
    return dict(group) if isinstance(params, set) else {**group, "params": list(params)}


# 7.6 ------------------------------------------------------------------------------------------------


def scores(
    generator: torch.Generator, batch_size: int, vocab_size: int, temperature: float, top_k: int | None, **more: Any
) -> Case:
    logits = 1.5 * normal(generator, batch_size, vocab_size)
    return {"logits": logits, "temperature": temperature, "top_k": top_k, "seed": some_seed(generator)} | more


def with_ties(case: Case, tied: int, largest: bool = True) -> Case:
    """The case with as many equal scores in every row, at different places; they are the largest, or in the middle."""
    logits = case["logits"].clone()
    for row in range(len(logits)):
        places = torch.randperm(logits.shape[1], generator=seeded(case["seed"] + row))[:tied]
        logits[row, places] = 4.0 if largest else 0.25
    return case | {"logits": logits}


def temperatures(generator: torch.Generator) -> list[Case]:
    cases = [
        scores(generator, 3, 5, 1.0, None),
        scores(generator, 4, 7, 0.5, None),
        scores(generator, 1, 6, 2.0, None),
        scores(generator, 6, 4, 1.7, None, strided=True),
        scores(generator, 3, 5, 2, None),  # an int
        scores(generator, 5, 3, 0.001, None),
        scores(generator, 2, 1, 0.8, None),
    ]
    many = with_ties(scores(generator, 1, 6, 1.5, None), 2, largest=False)
    many["logits"] = 0.5 * many["logits"].expand(MANY_ROWS, -1).clone()
    return [*cases, cases[1] | {"logits": cases[1]["logits"].double()}, many]


def cuts(generator: torch.Generator) -> list[Case]:
    cases = [
        scores(generator, 4, 7, 1.0, 3),
        scores(generator, 3, 3, 0.7, 2),
        scores(generator, 5, 6, 1.5, 1),
        scores(generator, 2, 5, 1.2, 5),
        scores(generator, 3, 4, 0.9, 9),
        scores(generator, 1, 8, 2.0, 4, strided=True),
        scores(generator, 6, 5, 1.3, 3, strided=True),
        scores(generator, 2, 9, 3, 8),
        scores(generator, 3, 1, 1.0, 2),
        scores(generator, 3, 6, 0.001, 3),
        with_ties(scores(generator, 4, 7, 1.0, 2), 4),
        with_ties(scores(generator, 3, 6, 0.8, 3), 4, largest=False),
        with_ties(scores(generator, 3, 5, 1.0, 1), 2),
        with_ties(scores(generator, 3, 4, 1.0, 3), 4),
    ]
    many = with_ties(scores(generator, 1, 7, 1.4, 5), 2)
    many["logits"] = 0.3 * many["logits"].expand(MANY_ROWS, -1).clone()
    return [*cases, cases[0] | {"logits": cases[0]["logits"].double()}, many]


def cold(generator: torch.Generator) -> list[Case]:
    cases = [
        scores(generator, 4, 7, 0, None),
        scores(generator, 1, 5, 0.0, None),
        scores(generator, 3, 3, 0.0, 2),
        scores(generator, 2, 6, 0, 1, strided=True),
        scores(generator, 5, 4, 0.0, 8),
        scores(generator, 2, 1, 0.0, None),
        with_ties(scores(generator, 4, 6, 0.0, None), 3),
        with_ties(scores(generator, 4, 6, 0.0, 2), 3),
    ]
    close = with_ties(scores(generator, 40, 3, 0.0, None), 2)
    close["logits"][torch.arange(40), torch.randint(3, (40,), generator=generator)] += 1e-5  # chance would not do
    return [*cases, cases[0] | {"logits": 1000 * cases[0]["logits"].double()}, close]


def sources(generator: torch.Generator) -> list[Case]:
    """Many rows, so that other draws show; the same numbers in every row are no matter here."""
    return [
        scores(generator, 60, 8, 1.0, None),
        scores(generator, 60, 8, 1.6, 4),
        scores(generator, 9, 8, 0.0, None),
        scores(generator, 9, 8, 0.0, 3),
    ]


def refused_scores(generator: torch.Generator) -> list[Case]:
    wrong = ((-0.5, None), (-1, None), (-0.25, 2), (1.0, 0), (0.8, -3), (1.0, -1))
    return [
        scores(generator, 2, 5, temperature, k, names=[str(temperature if temperature < 0 else k)])
        for temperature, k in wrong
    ]


def arguments_of(case: Case, draws: torch.Generator) -> list[Any]:
    return [laid_out(case["logits"], case.get("strided", False)), case["temperature"], case["top_k"], draws]


def observe_next(answer: Any, case: Case) -> Observation:
    """The ids, and every call of ``multinomial`` on the way."""
    generator = seeded(case["seed"])
    with Draws(generator) as draws:
        result = attempt(lambda: answer(*arguments_of(case, generator)))
    return {"result": result, "draws": draws.seen}


def observe_next_sources(answer: Any, case: Case) -> Observation:
    """What the draws depend on, and what a call leaves behind."""
    states, draws = RandomStates(), seeded(case["seed"])
    given = arguments_of(case, draws)
    first, second = attempt(lambda: answer(*given)), attempt(lambda: answer(*given))
    if isinstance(first, Raised):
        return {"raised": first}
    again, other = (
        attempt(lambda s=seed: answer(*arguments_of(case, seeded(s)))) for seed in (case["seed"], case["seed"] + 1)
    )
    is_sure = case["temperature"] == 0
    return {
        "inputs_unchanged": identical(given[0], case["logits"]),
        **states.unchanged(),
        "same_seed_gives_the_same_ids": attempt(lambda: same(first, again)),
        "the_next_draw_is_another": attempt(lambda: is_sure or not same(first, second)),
        "another_seed_gives_others": attempt(lambda: is_sure or not same(first, other)),
    }


def observe_next_refusal(answer: Any, case: Case) -> Observation:
    return {"error": attempt(lambda: answer(*arguments_of(case, seeded(case["seed"]))))}


# 7.7 ------------------------------------------------------------------------------------------------


class WithStatistics(nn.Module):
    """A small model with buffers: running statistics, and a count of its calls."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.second(self.norm(self.first(x)).tanh())


def layers(dtype: torch.dtype) -> nn.Module:
    """A small model without buffers."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def by_dimension(model: nn.Module) -> list[dict]:
    """Two groups with settings of their own."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.2},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "lr": 0.02},
    ]


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1),
    "two groups": lambda model: torch.optim.AdamW(by_dimension(model), lr=0.05),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "plain": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
}


def run_of(generator: torch.Generator, optimizer: str, done: int, step: int, **more: Any) -> Case:
    """Training interrupted after ``done`` updates; the checkpoint says it was ``step``. Then it ``goes_on``."""
    return {
        "optimizer": optimizer,
        "done": done,
        "step": step,
        "x": normal(generator, 5, 3),
        "y": normal(generator, 5, 2),
        "seeds": [some_seed(generator) for _ in range(2)],
        "file": "run.pt",
        "goes_on": 1,
    } | more


def some_step(generator: torch.Generator) -> int:
    return int(torch.randint(2, 5000, (), generator=generator))


def first_runs(generator: torch.Generator) -> list[Case]:
    """Runs of which only the step and the weights count."""
    return [
        run_of(generator, "plain", 1, some_step(generator), as_text=True),
        run_of(generator, "plain", 1, 0, as_text=True),
    ]


def resumed_runs(generator: torch.Generator) -> list[Case]:
    """Runs that only go on as before when the optimizer's memory and learning rate are back."""
    return [
        run_of(generator, "AdamW", 3, 3, as_text=True, goes_on=2),
        run_of(generator, "two groups", 3, some_step(generator), scheduled=0.3, as_text=True),
    ]


def odd_runs(generator: torch.Generator) -> list[Case]:
    double = {"x": normal(generator, 4, 3, dtype=torch.float64), "y": normal(generator, 4, 2, dtype=torch.float64)}
    return [
        run_of(generator, "momentum", 2, some_step(generator), statistics=True, file="epoch 2.ckpt", **double),
        run_of(generator, "AdamW", 0, 0, file="at_the_start", as_text=True),
        run_of(generator, "two groups", 2, some_step(generator), used=2, scheduled=2.0),
    ]


def files(generator: torch.Generator) -> list[Case]:
    """Several checkpoints of one run: side by side and in folders that are swapped later, or one over the other."""
    return [
        run_of(generator, optimizer, 1, 0, files=names, steps=[some_step(generator) for _ in names], as_text=as_text)
        for optimizer, names, as_text in (
            ("AdamW", ("one/a.pt", "one/b.pt", "two/a.pt"), True),
            ("momentum", ("a.pt", "a.pt"), False),
        )
    ]


def new_run(case: Case, number: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer as at the start of a run; other numbers, other weights."""
    dtype = case["x"].dtype
    model = WithStatistics(dtype) if case.get("statistics") else layers(dtype)
    numbers = seeded(case["seeds"][number])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(normal(numbers, *parameter.shape, dtype=dtype))
    return model, OPTIMIZERS[case["optimizer"]](model)


def train_on(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[Tensor]:
    """Steps on the case's data; the model's parameters after each of them, in one piece."""
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(case["x"]) - case["y"]) ** 2).mean().backward()
        optimizer.step()
        seen.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    return seen


def contents_of(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers as they are now."""
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def path_in(folder: str, case: Case, file: str = "") -> str | Path:
    path = Path(folder) / (file or case["file"])
    return str(path) if case.get("as_text") else path


def without_folder(seen: Observation, folder: str) -> Observation:
    """The same without the name of the temporary folder, which is another one each time."""

    def plain(value: Any) -> Any:
        if not isinstance(value, Raised):
            return value
        return dataclasses.replace(value, message=value.message.replace(repr(folder)[1:-1], "").replace(folder, ""))

    return {name: plain(value) for name, value in seen.items()}


def in_a_folder(observe: Callable[[Any, Any, Case, str], Observation]) -> Callable[[Any, Case], Observation]:
    """Give ``observe`` the two answers and an empty folder, which is removed afterwards."""

    def observe_there(answer: Any, case: Case) -> Observation:
        save, load = answer
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, torch.enable_grad():
            seen: Observation = {}
            stopped = attempt(lambda: seen.update(observe(save, load, case, folder)))
            return without_folder({"raised": stopped} if isinstance(stopped, Raised) else seen, folder)

    return observe_there


def observe_saving(save: Any, case: Case, path: str | Path, model: nn.Module, optimizer: Any) -> Observation:
    """Save a checkpoint, and see whether there is a file."""
    stopped = attempt(lambda: save(path, model, optimizer, case["step"]))
    return (
        {"saving": stopped} if isinstance(stopped, Raised) else {"saving": None, "file_written": Path(path).is_file()}
    )


def observe_run(save: Any, load: Any, case: Case, folder: str) -> Observation:
    """A run that is saved and goes on; another one that is loaded from there and goes on, too."""
    path = path_in(folder, case)
    model, optimizer = new_run(case, 0)
    train_on(case, model, optimizer, case["done"])
    for group in optimizer.param_groups:
        group["lr"] *= case.get("scheduled", 1.0)
    saved = contents_of(model)
    seen = observe_saving(save, case, path, model, optimizer)
    if not seen.get("file_written"):
        return seen
    goes_on = attempt(lambda: train_on(case, model, optimizer, case["goes_on"]))
    finished = contents_of(model)

    model, optimizer = new_run(case, 1)
    train_on(case, model, optimizer, case.get("used", 0))
    seen["step"] = attempt(lambda: load(path, model, optimizer))
    if isinstance(seen["step"], Raised):
        return seen
    restored = contents_of(model)
    resumed = attempt(lambda: train_on(case, model, optimizer, case["goes_on"]))
    return seen | {
        "model_restored": same(saved, restored),
        "restored": restored,
        "resumed_as_if_never_stopped": not isinstance(resumed, Raised) and same(finished, contents_of(model)),
        "resumed": resumed,
        "uninterrupted": goes_on,
    }


def observe_weights(save: Any, load: Any, case: Case, folder: str) -> Observation:
    """As ``observe_run``, up to the weights and the step. Whether training goes on is for another part."""
    return {n: value for n, value in observe_run(save, load, case, folder).items() if "resumed" not in n}


def observe_files(save: Any, load: Any, case: Case, folder: str) -> Observation:
    """What comes from which file after the folders have changed names: what counts lies in the file.

    And whether it holds plain data only: PyTorch's strict reader refuses pickled objects.
    """
    folders = [Path(folder) / name for name in ("one", "spare", "two")]
    folders[0].mkdir()
    folders[2].mkdir()
    loaded: Observation = {}

    def load_from(path: str | Path) -> None:
        number = len(loaded) // 3
        model, optimizer = new_run(case, 1)
        loaded[f"{number}_step"] = attempt(lambda: load(path, model, optimizer))
        loaded[f"{number}_contents"] = contents_of(model)
        loaded[f"{number}_goes_on"] = attempt(lambda: train_on(case, model, optimizer, 1))

    model, optimizer = new_run(case, 0)
    for file, step in zip(case["files"], case["steps"], strict=True):
        path = path_in(folder, case, file)
        if Path(path).exists():
            load_from(path)  # before it is overwritten
        train_on(case, model, optimizer, case["done"])
        seen = observe_saving(save, case | {"step": step}, path, model, optimizer)
        if not seen.get("file_written"):
            return seen
    for old, new in ((0, 1), (2, 0), (1, 2)):
        folders[old].rename(folders[new])
    swapped = {"one": "two", "two": "one"}
    names = ["/".join(swapped.get(name, name) for name in file.split("/")) for file in dict.fromkeys(case["files"])]
    paths = [path_in(folder, case, name) for name in names]
    data_only = attempt(lambda: torch.load(paths[0], weights_only=True) and None)
    for path in paths:
        load_from(path)
    files_stay = all(Path(path).is_file() for path in paths)
    return seen | {"holds_data_only": not isinstance(data_only, Raised), **loaded, "files_stay": files_stay}


PROBES = {
    "7.1": {
        "values": Probe(lists_of_guesses, plainly),
        "any_input": Probe(odd_guesses, plainly),
        "extremes": Probe(extreme_guesses, observe_extremes),
        "manners": Probe(lists_of_guesses, watched),
    },
    "7.2": {
        "values": Probe(losses, observe_tensor_loss),
        "numbers": Probe(plain_losses, plainly),
    },
    "7.3": {
        "values": Probe(even_batches, observe_estimate),
        "weighted": Probe(ragged_batches, observe_estimate),
        "inside": Probe(all_modes, observe_inside),
        "restored_after_error": Probe(modes_and_errors, observe_afterwards),
        "error": Probe(nothing_to_estimate, observe_no_batch),
    },
    "7.4": {
        "warm_up": Probe(warm_ups, observe_rates),
        "values": Probe(decays, observe_rates),
        "afterwards": Probe(after_the_end, observe_rates),
        "any_input": Probe(odd_schedules, observe_rates),
    },
    "7.5": {
        "values": Probe(lambda generator: models(generator, "ordinary", "linear"), observe_groups),
        "any_input": Probe(lambda generator: models(generator, "odd names", "odd names"), observe_groups),
        "once": Probe(lambda generator: models(generator, "tied", "frozen", "tied and frozen"), observe_groups),
    },
    "7.6": {
        "values": Probe(temperatures, observe_next),
        "top_k": Probe(cuts, observe_next),
        "greedy": Probe(cold, observe_next),
        "manners": Probe(sources, observe_next_sources),
        "error": Probe(refused_scores, observe_next_refusal),
    },
    "7.7": {
        "values": Probe(first_runs, in_a_folder(observe_weights)),
        "resumed": Probe(resumed_runs, in_a_folder(observe_run)),
        "any_input": Probe(odd_runs, in_a_folder(observe_run)),
        "files": Probe(files, in_a_folder(observe_files)),
    },
}
