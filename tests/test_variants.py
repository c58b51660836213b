"""Mutants of the references: one small change each. What the checks accept must behave like the reference.

Every mutant that earns full points is compared with the reference on many more random cases, written here
independently of the probes. A mutant that differs there but passed the check is a hole in the check.
"""

import __future__

import ast
import copy
import inspect
import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from utils.checks import EXERCISES
from utils.checks.exercise import Exercise, as_answers
from utils.checks.run import SEED, undisturbed
from utils.normalizers import AddOneNormalizer, stable_softmax

MUTANTS_WANTED = {"1": 40, "5": 60}  # at least so many per chapter
SECONDS = 2  # per mutant; a loop without end is stopped and earns nothing

pytestmark = pytest.mark.usefixtures("one_thread")


# Making mutants -------------------------------------------------------------------------------------

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Pow: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {
    "min": "max",
    "max": "min",
    "amax": "amin",
    "amin": "amax",
    "sum": "mean",
    "mean": "sum",
    "exp": "exp2",
    "log": "log2",
    "sorted": "list",
    "double": "half",
    "float": "double",
    "eval": "train",
    "len": "id",
}


def constants(value: Any) -> list[Any]:
    """Other constants that someone might have written."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return list(dict.fromkeys([value + 1, value - 1, -value, 0])) if value else [1, -1]
    return [value * 2, -value] if isinstance(value, float) else []


def changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Every change of this one node, as an action upon it."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for kind in SWAPS.get(type(node.op), ()):
            yield lambda kind=kind: setattr(node, "op", kind())
        if isinstance(node, ast.BinOp):
            yield lambda: (lambda left: (setattr(node, "left", node.right), setattr(node, "right", left)))(node.left)
    if isinstance(node, ast.Compare):
        for kind in SWAPS.get(type(node.ops[0]), ()):
            yield lambda kind=kind: node.ops.__setitem__(0, kind())
    if isinstance(node, ast.Constant):
        for value in constants(node.value):
            yield lambda value=value: setattr(node, "value", value)
    if isinstance(node, ast.Call):
        for position in range(len(node.keywords)):
            yield lambda position=position: node.keywords.pop(position)
        if len(node.args) == 2:
            yield lambda: node.args.reverse()
        if node.args:
            yield lambda: node.args.pop()
    if isinstance(node, ast.If | ast.IfExp):
        yield lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda: setattr(node, "op", ast.UAdd())
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda: setattr(node, "attr", NAMES[node.attr])
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield lambda: setattr(node, "id", NAMES[node.id])
    if isinstance(node, ast.Slice):
        yield lambda: (setattr(node, "lower", None), setattr(node, "upper", None))
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            for position, statement in enumerate(block):
                if not is_docstring(statement):
                    yield lambda block=block, position=position: block.__setitem__(position, ast.Pass())
    for name, value in ast.iter_fields(node):  # `x.sum(...)` becomes `x`
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            yield lambda name=name, inner=value.func.value: setattr(node, name, inner)


def is_docstring(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_docstring(node.body[0]) and len(node.body) > 1:
            node.body.pop(0)
    return tree


def mutated_sources(answer: Any) -> list[str]:
    """The source of an answer with one change each, every text once."""
    tree = without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(answer))))
    texts = {ast.unparse(tree): None}
    for number, node in enumerate(ast.walk(tree)):
        for position in range(sum(1 for _ in changes(node))):
            mutant = copy.deepcopy(tree)
            place = list(ast.walk(mutant))[number]
            list(changes(place))[position]()
            with suppress(ValueError, RecursionError):
                texts[ast.unparse(ast.fix_missing_locations(mutant))] = None
    return list(texts)[1:]


def built(answer: Any, source: str) -> Any:
    """The mutant, in a copy of its module's namespace; None where the source no longer makes one."""
    namespace = dict(vars(inspect.getmodule(inspect.unwrap(answer))))
    with suppress(Exception):
        exec(
            compile(source, "<mutant>", "exec", __future__.annotations.compiler_flag), namespace
        )  # the source is the reference's own, changed above
        return namespace[answer.__name__]
    return None


# Comparing with the reference -----------------------------------------------------------------------


class TimeIsUpError(BaseException):
    """A mutant that runs without end; no Exception, so that no mutant catches it."""


@contextmanager
def time_limit(seconds: int):
    def stop(number, frame):
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again and again, should the check report it as an error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(action: Callable[[], Any]) -> Any:
    """The value, or the kind of error: errors of the same kind count as the same behaviour."""
    try:
        return action()
    except (ValueError, AssertionError):
        return "refused"
    except Exception as error:
        return type(error).__name__


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        close = first.is_floating_point() and second.is_floating_point()
        same = first.shape == second.shape and first.dtype == second.dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if close else {"rtol": 0, "atol": 0}
        return same and torch.allclose(first, second, equal_nan=True, **tolerance)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


def randn(g, *shape):
    dtype = (torch.float32, torch.float64)[int(torch.randint(2, (), generator=g))]
    return torch.randn(*shape, generator=g, dtype=dtype)


def size(g, low=1, high=7):
    return int(torch.randint(low, high, (), generator=g))


def letters(g, count):
    return "".join(chr(97 + i) for i in torch.randint(9, (count,), generator=g).tolist())


def stress_1_1(f, g):
    n = size(g, 1, 20)
    dtype = torch.float64
    q, k = torch.randn(2, n, generator=g, dtype=dtype)
    return f(q, k)


def stress_1_2(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 1, 4))))
    return f().normalize(x)


def stress_1_3(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 1, 4)))) * (1, 1000)[size(g, 0, 2)]
    return f(x), f(x, dim=size(g, -x.dim(), x.dim()))


def stress_1_4(f, g):
    d = size(g)
    x = torch.randn(size(g) + 1, d, generator=g)
    return f(x[0], x[1:])


def stress_1_5(f, g):
    return f(randn(g, *(size(g) for _ in range(size(g, 2, 5)))))


class Cubes:
    def normalize(self, scores):
        return stable_softmax(scores**3)


def stress_1_6(f, g):
    x = randn(g, *(size(g) for _ in range(size(g, 2, 5))))
    made = [f(), f(AddOneNormalizer()), f(normalizer=Cubes()), f(None)]
    scores = made[0].get_scores(x)
    return [
        scores,
        [m.get_weights(scores + 1) for m in made],
        [m(x) for m in made],
        made[1].get_context_vectors(x, scores),
    ]


def stress_5_1(f, g):
    text = letters(g, size(g, 5, 30)) + "\n B"
    t = f(text)
    ids = t.encode(text)
    back = t.decode(ids), t.decode(torch.as_tensor(ids)), t.decode([]), t.encode("")
    errors = [outcome(lambda s=s: t.encode(s)) for s in ("Z", "aZ", "a€", "\t")]
    return [t.vocab_size, ids, *back, *errors]


def stress_5_2(f, g):
    n, block_size = size(g, 12, 30), size(g, 1, 9)
    draws = torch.Generator().manual_seed(size(g, 0, 10**6))
    data = torch.randint(1000, (n,), generator=g)
    large = f(torch.arange(9), 4, 3000, draws)[0][:, 0]
    shares = torch.bincount(large, minlength=9) / 3000
    x, y = f(data, block_size, 5, draws)
    windows = {tuple(row) for row in data.unfold(0, block_size + 1, 1).tolist()}
    right = all((*a, b[-1]) in windows and a[1:] == b[:-1] for a, b in zip(x.tolist(), y.tolist(), strict=True))
    return [x.shape, y.shape, x.dtype, y.dtype, right, [round(share / 0.06) for share in shares.tolist()]]


def stress_5_3(f, g):
    v, b, t = size(g, 2), size(g), size(g)
    model = f(v)
    with torch.no_grad():
        model.token_embedding_table.weight.copy_(torch.randn(v, v, generator=g))
    idx, targets = torch.randint(v, (2, b, t), generator=g)
    logits, loss = model(idx, targets)
    loss.backward()
    names = [name for name, _ in model.named_parameters()]
    return [logits, loss, model(idx), names, model.token_embedding_table.weight.grad]


class Remembering(torch.nn.Module):
    """Logits that depend on the position, the last token and the sum of all; a dropout that shows the mode."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)
        self.inner = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.ReLU())

    def forward(self, idx, targets=None):
        return self.table[(idx.cumsum(1) + 3 * idx + idx.shape[1]) % len(self.table)], None


def stress_5_4(f, g):
    v = size(g, 3, 9)
    model = Remembering(2 * torch.randn(v, v, generator=g))
    model.inner.train(bool(size(g, 0, 2)))
    before = [m.training for m in model.modules()]
    idx = torch.randint(v, (size(g), size(g)), generator=g)
    kept = idx.clone()
    text = f(model, idx, size(g, 0, 12), torch.Generator().manual_seed(size(g, 0, 10**6)))
    return [text, torch.equal(idx, kept), before == [m.training for m in model.modules()], text.requires_grad]


def stress_5_5(f, g):
    v = size(g, 1, 12)
    return f(torch.randint(v, (size(g, 2, 900),), generator=g), v)


class Pieces:
    def __init__(self, length):
        self.length = length

    def encode_ordinary(self, text):
        return [7] * -(-len(text) // self.length)


def stress_5_6(f, g):
    return [f(letters(g, size(g, 1, 40)), Pieces(size(g))), outcome(lambda: f("", Pieces(2)))]


STRESS: dict[str, Callable[[Any, torch.Generator], Any]] = {
    name.removeprefix("stress_").replace("_", "."): function
    for name, function in list(globals().items())
    if name.startswith("stress_")
}
TRIES = {"5.2": 6}


def first_difference(exercise: Exercise, mutant: Any) -> str:
    """Where a mutant and the reference part ways; empty if they never do."""
    stress = STRESS[exercise.id]
    for seed in range(TRIES.get(exercise.id, 40)):
        seen = []
        for answer in (mutant, exercise.reference):
            torch.manual_seed(0)
            generator = torch.Generator().manual_seed(seed)
            seen.append(outcome(lambda a=answer, g=generator: stress(a, g)))
        if not equal(*seen):
            return f"seed {seed}: got {seen[0]!r}, expected {seen[1]!r}"
    return ""


# The tests ------------------------------------------------------------------------------------------


def variants(exercise: Exercise) -> list[tuple[str, Any]]:
    """All mutants of an exercise: the answer, or one of its answers, changed in one place."""
    answers = as_answers(exercise.reference)
    found = []
    for place, answer in enumerate(answers):
        for source in mutated_sources(answer):
            mutant = built(answer, source)
            if isinstance(mutant, type) == isinstance(answer, type) and callable(mutant):
                found.append((source, (*answers[:place], mutant, *answers[place + 1 :])))
    return found


COVERED = [exercise for exercise in EXERCISES.values() if exercise.id in STRESS]


@pytest.mark.parametrize("exercise", COVERED, ids=lambda exercise: exercise.id)
def test_mutants_that_pass_behave_like_the_reference(exercise, record_property):
    mutants, accepted, holes = variants(exercise), 0, []
    inputs = exercise.inputs(torch.Generator().manual_seed(SEED))
    expected = exercise.probe(exercise.reference, inputs)
    for source, answers in mutants:
        answer = answers if len(answers) > 1 else answers[0]
        with suppress(TimeIsUpError), time_limit(SECONDS):
            with undisturbed(answers):  # what `check` does, without looking for the mistake's name
                faults = exercise.judge(exercise.probe(answer, inputs), expected, inputs)
            if not any(faults.values()):
                accepted += 1
                if found := first_difference(exercise, answer):
                    holes.append(f"{source}\n{found[:500]}")
    record_property("mutants", len(mutants))
    record_property("equal", accepted - len(holes))
    assert not holes, f"{len(holes)} of {len(mutants)} mutants passed though they differ:\n\n" + "\n\n".join(holes)
    assert accepted < len(mutants)


def test_there_are_enough_mutants():
    counts: dict[str, int] = {}
    for exercise in COVERED:
        chapter = exercise.id.split(".")[0]
        counts[chapter] = counts.get(chapter, 0) + len(variants(exercise))
    assert all(counts[chapter] >= wanted for chapter, wanted in MUTANTS_WANTED.items()), counts
    assert sum(counts.values()) >= 100, counts


def test_the_stress_comparison_tells_answers_apart():
    """It finds each misconception that changes numbers; without it, holes would go unseen."""
    for exercise in COVERED:
        assert first_difference(exercise, exercise.reference) == ""
        told_apart = [m for m in exercise.misconceptions if first_difference(exercise, m.answer)]
        assert len(told_apart) >= len(exercise.misconceptions) / 2


def test_a_loop_without_end_is_stopped():
    with pytest.raises(TimeIsUpError), time_limit(1):
        while True:
            pass
