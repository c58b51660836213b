"""Every exercise, tested from its definition: a new exercise is covered as soon as it is in ``EXERCISES``."""

import ast
import dataclasses
import functools
import itertools
import operator
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from right_answers import RIGHT_ANSWERS
from subtle_mistakes import SUBTLE_MISTAKES
from torch import nn

from utils.checks import EXERCISES, check, run
from utils.checks.exercise import Exercise, as_answers
from utils.checks.forbidden import Watch, mentioned, plain_name
from utils.checks.probes.observe import Raised
from utils.checks.report import Report
from utils.checks.run import evaluate, undisturbed
from utils.checks.yardstick import Yardstick

SEEDS = (0, 1)
TRIVIAL = {"4.2", "4.5"}  # answers of one line, where one misconception is all there is
ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("one_thread")


YARDSTICKS: dict[tuple[int, int], Yardstick] = {}


def remembered_yardstick(exercise: Exercise, seed: int) -> Yardstick:
    """One for all answers: the reference and the misconceptions are tried once, not once per answer."""
    key = (id(exercise), seed)  # the yardstick keeps its exercise, so no other one gets this id
    if key not in YARDSTICKS:
        YARDSTICKS[key] = Yardstick(exercise, seed)
    return YARDSTICKS[key]


@pytest.fixture(autouse=True)
def remember(monkeypatch):
    monkeypatch.setattr(run, "Yardstick", remembered_yardstick)


def evaluated(exercise: Exercise, answer, seed: int) -> Report:
    answers = as_answers(answer)
    with undisturbed(answers):
        return evaluate(answers, remembered_yardstick(exercise, seed))


def checked(exercise: Exercise, answer) -> Report:
    return check(exercise.id, *as_answers(answer))


def per_answer(exercise: Exercise, answer):
    """The same strange thing in the place of each answer that the exercise asks for."""
    return (answer,) * exercise.num_answers


every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda exercise: exercise.id)


# (a) the reference -----------------------------------------------------------------------------------


@every_exercise
def test_reference_earns_full_points(exercise):
    for report in (checked(exercise, exercise.reference), *(evaluated(exercise, exercise.reference, s) for s in SEEDS)):
        assert report.points == report.max_points == exercise.points, str(report)
        assert report.messages == []
        assert report.status == "passed"


# (b) other right answers -----------------------------------------------------------------------------


@every_exercise
def test_there_are_other_right_answers(exercise):
    listed = RIGHT_ANSWERS.get(exercise.id, [])
    assert len({name for name, _ in listed}) == len(listed) >= 3


RIGHT = [
    pytest.param(exercise, answer, id=f"{exercise.id} {name}")
    for exercise in EXERCISES.values()
    for name, answer in RIGHT_ANSWERS.get(exercise.id, [])
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_right_answers_earn_full_points(exercise, answer):
    for report in (checked(exercise, answer), evaluated(exercise, answer, SEEDS[0])):
        assert report.points == exercise.points, str(report)


# (c) misconceptions ----------------------------------------------------------------------------------


@every_exercise
def test_there_are_misconceptions_with_sentences_of_their_own(exercise):
    assert len(exercise.misconceptions) >= (1 if exercise.id in TRIVIAL else 3)
    for texts in ([m.sentence for m in exercise.misconceptions], [m.name for m in exercise.misconceptions]):
        assert len(set(texts)) == len(texts)
        assert all(text.strip() for text in texts)


MISTAKES = [
    pytest.param(exercise, misconception, id=f"{exercise.id} {misconception.name}")
    for exercise in EXERCISES.values()
    for misconception in exercise.misconceptions
]


@pytest.mark.parametrize(("exercise", "misconception"), MISTAKES)
def test_misconceptions_hear_their_own_sentence(exercise, misconception):
    others = {m.sentence for m in exercise.misconceptions} - {misconception.sentence}
    report = checked(exercise, misconception.answer)
    assert report.points < exercise.points
    assert misconception.sentence in report.messages, str(report)
    assert not others & set(report.messages), str(report)


@pytest.mark.parametrize(("exercise", "misconception"), MISTAKES)
def test_misconceptions_are_refused_on_other_cases_too(exercise, misconception):
    assert evaluated(exercise, misconception.answer, SEEDS[0]).points < exercise.points


# (d) strange answers ---------------------------------------------------------------------------------


class OwnError(BaseException):
    """Not even an Exception."""


class SpeechlessError(Exception):
    """Fails at saying what is wrong."""

    def __str__(self):
        raise RuntimeError("no words")


ERRORS = [ValueError, KeyError, RuntimeError, SystemExit, RecursionError, MemoryError, OwnError, SpeechlessError]


def raising(error):
    def answer(*args, **kwargs):
        raise error("<script>alert('0x')</script>")

    return answer


def returning(value):
    return lambda *args, **kwargs: value


def ending(change):
    """The reference with its results changed."""

    def changed(reference):
        if isinstance(reference, type):
            return changed_class(reference, change)
        return functools.wraps(reference)(lambda *args, **kwargs: change(reference(*args, **kwargs)))

    return changed


def changed_class(reference, change):
    """A subclass in which every public method of the reference changes what it returns."""

    def wrap(method):
        return lambda self, *args, **kwargs: change(method(self, *args, **kwargs))

    own = {
        name: wrap(value)
        for kind in reversed(reference.__mro__)
        if kind.__module__.startswith("utils.")
        for name, value in vars(kind).items()
        if callable(value) and (not name.startswith("_") or name == "__call__")
    }
    return type(reference.__name__, (reference,), own)


def leaving(change):
    """The reference with what it leaves in its last module changed, where that counts and not what it returns."""

    def changed(reference):
        def answer(*args):
            reference(*args)
            module = [arg for arg in args if isinstance(arg, nn.Module)][-1]
            for name, value in list(module.named_parameters()):
                owner, _, last = name.rpartition(".")
                new, inner = change(value.detach()), module.get_submodule(owner)
                delattr(inner, last)
                setattr(inner, last, nn.Parameter(new, new.is_floating_point()) if is_tensor(new) else new)

        return answer

    return changed


def is_tensor(value):
    return isinstance(value, torch.Tensor)


IN_PLACE = {"2.5", "6.7"}  # what the answer returns is free


def tensors(change):
    """Apply a change to every floating tensor, or any tensor if there is no floating one, of a result."""

    def applied(value):
        if isinstance(value, torch.Tensor):
            return change(value)
        if isinstance(value, tuple | list):
            return type(value)(applied(item) for item in value)
        return "strange" if value is not None else value

    return applied


CHANGES = {
    "None": lambda value: None,
    "text": lambda value: "text",
    "list": lambda value: [],
    "dict": lambda value: {},
    "extra dimension": tensors(lambda t: t.unsqueeze(0)),
    "int": tensors(lambda t: t.to(torch.int32)),
    "other float": tensors(lambda t: t.to(torch.float16)),
    "NaN": tensors(lambda t: torch.full(t.shape, float("nan"))),
    "sparse": tensors(lambda t: t.to_sparse() if t.dim() else "sparse"),
    "meta": tensors(lambda t: t.to("meta")),
    "complex": tensors(lambda t: t.to(torch.complex64)),
    "generator": lambda value: (x for x in [value]),
}


ADDRESS = re.compile(r"0x[0-9a-f]{4,}| at 0x")


def assert_nothing_earned(report: Report, capsys):
    assert report.points == 0, str(report)
    assert repr(report) == "0"
    assert report.messages
    assert not ADDRESS.search(str(report))
    assert "<script>" not in report._repr_html_()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


@pytest.fixture
def briefly(monkeypatch, exercise):
    """One misconception to compare with is enough where none will fit; all of them take long."""
    brief = dataclasses.replace(exercise, misconceptions=exercise.misconceptions[:1])
    monkeypatch.setitem(EXERCISES, exercise.id, brief)


@pytest.mark.parametrize("change", CHANGES)
@every_exercise
def test_changed_results_earn_nothing(exercise, change, capsys, briefly):
    changed = (leaving if exercise.id in IN_PLACE else ending)(CHANGES[change])
    answer = tuple(changed(reference) for reference in as_answers(exercise.reference))
    assert_nothing_earned(check(exercise.id, *answer), capsys)


def as_class_where_asked(exercise, function):
    """A class whose making and every method is ``function``, where the exercise asks for a class."""

    def one(reference):
        if not isinstance(reference, type):
            return function
        return type("Strange", (), {"__init__": function})

    return tuple(one(reference) for reference in as_answers(exercise.reference))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@every_exercise
def test_errors_are_reported_and_earn_nothing(exercise, error, capsys, briefly):
    report = check(exercise.id, *as_class_where_asked(exercise, raising(error)))
    assert_nothing_earned(report, capsys)
    refusal_is_right = any(part.name == "error" for part in exercise.parts)
    assert error.__name__ in str(report) or refusal_is_right


@every_exercise
def test_a_stub_is_open(exercise, capsys):
    report = check(exercise.id, *as_class_where_asked(exercise, raising(NotImplementedError)))
    assert_nothing_earned(report, capsys)
    assert report.messages == ["Not attempted yet."]
    assert report.status == "open"


@every_exercise
def test_a_stub_method_is_open(exercise):
    """As in the notebook: the class is there, its methods raise."""

    def stub(reference):
        if not isinstance(reference, type):
            return raising(NotImplementedError)
        names = ("__call__", "forward", "normalize", "encode", "step")
        methods = {name: raising(NotImplementedError) for name in names}
        return type(reference.__name__, (reference,), methods)

    report = check(exercise.id, *map(stub, as_answers(exercise.reference)))
    assert report.points < exercise.points
    assert "ot attempted yet" in report.summary or "ome of it is not attempted yet." in report.summary


@every_exercise
def test_wrong_calls_are_explained(exercise, capsys, briefly):
    other_kind = [raising(ValueError) if isinstance(r, type) else int for r in as_answers(exercise.reference)]
    wrong = [
        (),
        as_answers(exercise.reference) * 2,
        per_answer(exercise, 3),
        per_answer(exercise, None),
        per_answer(exercise, "text"),
        per_answer(exercise, nn.Linear),
        per_answer(exercise, lambda: None),
        per_answer(exercise, type("Empty", (), {})),
        tuple(other_kind),
    ]
    for answers in wrong:
        assert_nothing_earned(check(exercise.id, *answers), capsys)


@pytest.mark.parametrize("unknown", ["9.9", "", None, 3, object(), len, ["1.1"], float("nan"), "<script>"])
def test_unknown_ids(unknown, capsys):
    report = check(unknown, len)
    assert report.max_points == 0
    assert_nothing_earned(report, capsys)


def test_an_id_may_be_a_number():
    assert check(1.1, EXERCISES["1.1"].reference).points == EXERCISES["1.1"].points


def test_an_interrupt_is_reported(capsys):
    def answer(*args):
        raise KeyboardInterrupt

    assert_nothing_earned(check("1.1", answer), capsys)


def test_recursion_without_end(capsys):
    def answer(*args):
        return answer(*args)

    assert_nothing_earned(check("1.4", answer), capsys)


def noisy(reference):
    """The reference, after disturbing all that can be disturbed."""

    def disturb():
        print("out")
        print("err", file=sys.stderr)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)

    def function(*args, **kwargs):
        disturb()
        return reference(*args, **kwargs)

    if not isinstance(reference, type):
        return function
    return type(reference.__name__, (reference,), {"__init__": lambda self, *a, **k: (disturb(), None)[1]})


@every_exercise
def test_check_leaves_no_traces(exercise, capsys, briefly):
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module[1].eval()
    answers = [
        *(as_answers(exercise.reference),),
        tuple(map(noisy, as_answers(exercise.reference))),
        per_answer(exercise, module),
    ]
    torch.manual_seed(5)
    for answer in answers:
        before = torch.get_rng_state(), random.getstate(), str(np.random.get_state()), torch.get_default_dtype()
        with torch.no_grad():
            check(exercise.id, *answer)
            assert not torch.is_grad_enabled()
        check(exercise.id, *answer)
        assert torch.is_grad_enabled()
        after = torch.get_rng_state(), random.getstate(), str(np.random.get_state()), torch.get_default_dtype()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert module.training and module[0].training and not module[1].training
    assert capsys.readouterr() == ("", "")


@every_exercise
def test_check_does_not_depend_on_what_went_before(exercise):
    torch.manual_seed(3)
    first = str(checked(exercise, exercise.reference))
    torch.manual_seed(4)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert str(checked(exercise, exercise.reference)) == first
    finally:
        torch.set_default_dtype(torch.float32)


# (e) the report --------------------------------------------------------------------------------------


def reports_as_text() -> str:
    """Reports of all kinds, as notebooks and terminals show them."""
    texts = []
    for exercise in EXERCISES.values():
        report = checked(exercise, exercise.misconceptions[0].answer)
        texts += [report._repr_html_(), str(report), repr(report)]
    for exercise in (EXERCISES["1.1"], EXERCISES["1.6"]):  # a function and a class that raise
        report = checked(exercise, as_class_where_asked(exercise, raising(ValueError)))
        texts += [report._repr_html_(), str(report), repr(report)]
    texts.append(check("none", len)._repr_html_())
    texts.append(check("1.1", lambda q, k: object() + q)._repr_html_())
    texts.append(check("1.1", lambda q, k: {}[object()])._repr_html_())
    texts.append(check("1.1", lambda q, k: print)._repr_html_())
    return "\n".join(texts)


@functools.cache
def reports_of_this_process() -> str:
    return reports_as_text()


def test_reports_are_the_same_in_every_process():
    here = reports_of_this_process()
    code = "import test_exercises, torch; torch.set_num_threads(1); print(test_exercises.reports_as_text())"
    for seed in ("1",):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        environment["PYTHONIOENCODING"] = "utf-8"
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, cwd=ROOT, encoding="utf-8", check=False
        )
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.rstrip("\n") == here.rstrip("\n")


def test_reports_hold_no_addresses_and_no_foreign_markup():
    text = reports_of_this_process()
    assert not ADDRESS.search(text)
    assert "&lt;script&gt;" in text
    for html in (line for line in text.splitlines() if line.startswith("<div")):
        assert "<script" not in html


def test_the_reports_forms():
    report = check("1.1", EXERCISES["1.1"].reference)
    wrong = EXERCISES["1.3"].misconceptions[0].answer
    assert check("1.3", wrong)._repr_html_() == check("1.3", wrong)._repr_html_()
    assert repr(report) == str(report.points) == "3"
    assert str(report).startswith("✓ Exercise 1.1 · The dot product: 3 of 3 points\n  ✓ ")
    assert report._repr_html_().startswith("<div role=")
    failed = check("1.1", lambda query, key: query * key)
    assert str(failed).startswith("✗ Exercise 1.1 · The dot product: 0 of 3 points\n  → You have the products")


# (f) how exercises are put together ------------------------------------------------------------------


@every_exercise
def test_parts_and_probes_belong_together(exercise):
    names = [part.name for part in exercise.parts]
    assert len(set(names)) == len(names)
    assert set(names) == set(exercise.probes)
    assert all(part.points > 0 for part in exercise.parts)
    assert sum(part.points for part in exercise.parts) == exercise.points
    assert all(needed in names for part in exercise.parts for needed in part.needs)
    assert exercise.num_answers == len(as_answers(exercise.reference))
    assert EXERCISES[exercise.id] is exercise


@every_exercise
def test_every_part_has_cases_that_differ_by_seed(exercise):
    first, again, other = (exercise.inputs(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(len(cases) >= 2 for cases in first.values())
    assert str(first) == str(again)
    assert str(first) != str(other) or exercise.id in TRIVIAL


@every_exercise
def test_the_reference_is_never_stopped_by_a_probe(exercise):
    """A case that the reference can't answer would ask for its error."""
    inputs = exercise.inputs(torch.Generator().manual_seed(0))
    with undisturbed(()):
        seen = exercise.probe(exercise.reference, inputs)
    for name, observations in seen.items():
        raised = [value for o in observations for value in o.values() if isinstance(value, Raised)]
        assert not raised or "error" in name, (name, raised[0])


# (g) what is not allowed -----------------------------------------------------------------------------

X, Y = torch.arange(1.0, 4.0), torch.arange(2.0, 5.0)


def helper_that_uses(function):
    def helper(*args):
        return function(*args)

    return helper


def row(x):
    return x[None]


def column(x):
    return x[:, None]


DOTS = {
    "torch.dot": lambda q, k: torch.dot(q, k),
    "method dot": lambda q, k: q.dot(k),
    "getattr": lambda q, k: getattr(torch, "d" + "ot")(q, k),
    "inner": lambda q, k: torch.inner(q, k),
    "vdot": lambda q, k: torch.vdot(q, k),
    "vecdot": lambda q, k: torch.linalg.vecdot(q, k),
    "torch.vecdot alias": lambda q, k: torch._C._linalg.linalg_vecdot(q, k),
    "@": lambda q, k: q @ k,
    "@=": lambda q, k: operator.imatmul(q, k),
    "operator.matmul": lambda q, k: operator.matmul(q, k),
    "__matmul__": lambda q, k: torch.Tensor.__matmul__(q, k),
    "__rmatmul__": lambda q, k: torch.Tensor.__rmatmul__(q, k),
    "matmul": lambda q, k: torch.matmul(q, k),
    "linalg.matmul": lambda q, k: torch.linalg.matmul(q, k),
    "method matmul": lambda q, k: q.matmul(k),
    "einsum": lambda q, k: torch.einsum("i,i->", q, k),
    "mv": lambda q, k: torch.mv(row(q), k)[0],
    "mm": lambda q, k: torch.mm(row(q), column(k))[0, 0],
    "bmm": lambda q, k: torch.bmm(q[None, None], k[None, :, None])[0, 0, 0],
    "addmv": lambda q, k: torch.addmv(q.new_zeros(1), row(q), k)[0],
    "addmv_": lambda q, k: q.new_zeros(1).addmv_(row(q), k)[0],
    "linear": lambda q, k: F.linear(q, row(k))[0],
    "tensordot": lambda q, k: torch.tensordot(q, k, dims=1),
    "aten": lambda q, k: torch.ops.aten.dot(q, k),
    "aten overload": lambda q, k: torch.ops.aten.dot.default(q, k),
    "helper": lambda q, k: helper_that_uses(torch.dot)(q, k),
    "partial": functools.partial(torch.inner),
    "the function itself": torch.dot,
    "vmap": lambda q, k: torch.vmap(torch.dot)(row(q), row(k))[0],
    "deep helper": lambda q, k: (lambda: helper_that_uses(operator.matmul)(q, k))(),
}
SOFTMAXES = {
    "torch.softmax": lambda s, dim=-1: torch.softmax(s, dim),
    "method": lambda s, dim=-1: s.softmax(dim),
    "F.softmax": lambda s, dim=-1: F.softmax(s, dim=dim),
    "special": lambda s, dim=-1: torch.special.softmax(s, dim),
    "module": lambda s, dim=-1: nn.Softmax(dim=dim)(s),
    "log_softmax": lambda s, dim=-1: torch.log_softmax(s, dim).exp(),
    "F.log_softmax": lambda s, dim=-1: F.log_softmax(s, dim).exp(),
    "LogSoftmax": lambda s, dim=-1: nn.LogSoftmax(dim)(s).exp(),
    "special.log_softmax": lambda s, dim=-1: torch.special.log_softmax(s, dim).exp(),
    "softmin": lambda s, dim=-1: F.softmin(-s, dim=dim),
    "Softmin": lambda s, dim=-1: nn.Softmin(dim)(-s),
    "logsumexp": lambda s, dim=-1: (s - s.logsumexp(dim, keepdim=True)).exp(),
    "special.logsumexp": lambda s, dim=-1: (s - torch.special.logsumexp(s, dim, keepdim=True)).exp(),
    "_softmax": lambda s, dim=-1: torch._softmax(s, dim, False),
    "aten": lambda s, dim=-1: torch.ops.aten.softmax(s, dim),
    "aten inner": lambda s, dim=-1: torch.ops.aten._softmax.default(s, dim, False),
    "getattr": lambda s, dim=-1: getattr(F, "soft" + "max")(s, dim),
    "helper": lambda s, dim=-1: helper_that_uses(torch.softmax)(s, dim),
    "distribution": lambda s, dim=-1: torch.distributions.Categorical(logits=s.movedim(dim, -1)).probs,
}
SHORT_CUTS = {"1.1": DOTS, "1.3": SOFTMAXES}


@pytest.mark.parametrize(
    ("exercise_id", "name"), [(i, n) for i, answers in SHORT_CUTS.items() for n in answers], ids=lambda text: text
)
def test_short_cuts_earn_nothing(exercise_id, name, capsys):
    report = check(exercise_id, SHORT_CUTS[exercise_id][name])
    assert_nothing_earned(report, capsys)
    assert report.messages[0].startswith("This exercise is about doing without")


@pytest.mark.parametrize("exercise_id", SHORT_CUTS)
def test_every_forbidden_name_has_a_short_cut(exercise_id):
    met = set()
    for answer in SHORT_CUTS[exercise_id].values():
        with Watch(EXERCISES[exercise_id].forbid) as watch:
            answer(X, Y) if exercise_id == "1.1" else answer(X)
        met |= watch.used
    assert met == EXERCISES[exercise_id].forbid


@every_exercise
def test_forbidden_names_are_plain(exercise):
    assert {plain_name(name) for name in exercise.forbid} == set(exercise.forbid)


def dot_in_numpy(query, key):
    return torch.tensor(np.dot(query.numpy(), key.numpy()), dtype=query.dtype)


def matmul_in_numpy(query, key):
    return torch.as_tensor(query.detach().numpy() @ key.detach().numpy(), dtype=query.dtype)


def imported_inside(scores, dim=-1):
    from torch import softmax as turn

    return turn(scores, dim)


@pytest.mark.parametrize(
    ("exercise_id", "answer"), [("1.1", dot_in_numpy), ("1.1", matmul_in_numpy), ("1.3", imported_inside)]
)
def test_short_cuts_outside_pytorch_earn_nothing(exercise_id, answer):
    assert check(exercise_id, answer).points == 0


class OwnSoftmax:
    """No torch.softmax, no F.softmax, no scores @ keys anywhere."""

    softmax = 1

    def log_softmax(self, scores, dim):  # the name of a method of one's own
        logsumexp = (scores - scores.amax(dim, keepdim=True)).exp()
        return logsumexp / logsumexp.sum(dim, keepdim=True)

    def __call__(self, scores, dim=-1):
        """Instead of `torch.softmax(scores, dim)`."""
        return self.log_softmax(scores, dim)


def mentions_only(query, key):
    """Not query @ key, not torch.dot(query, key)."""
    # torch.matmul(query, key) would do, and so would query.dot(key)
    dot, matmul, linear = query, key, "einsum"
    return (dot * matmul).sum() if linear else None


def test_names_alone_are_no_short_cuts():
    assert check("1.1", mentions_only).points == 3
    assert check("1.3", OwnSoftmax()).points == 5
    assert mentioned(OwnSoftmax, EXERCISES["1.3"].forbid) == set()


# (h) bad manners -------------------------------------------------------------------------------------


def functions_and_methods(reference, wrap):
    """The reference with ``wrap`` around the function, or around each public method."""
    if isinstance(reference, tuple):
        return tuple(functions_and_methods(one, wrap) for one in reference)
    if not isinstance(reference, type):
        return wrap(reference)
    methods = {
        name: wrap(value)
        for name, value in vars(reference).items()
        if callable(value) and (not name.startswith("_") or name == "__call__")
    }
    return type(reference.__name__, (reference,), methods)


def zeroes_its_input(function):
    def answer(*args, **kwargs):
        result = function(*args, **kwargs)
        for tensor in args:
            if isinstance(tensor, torch.Tensor):
                with torch.no_grad():
                    tensor.zero_()
        return result

    return answer


def keeps_the_first_result(function):
    kept = []

    def answer(*args, **kwargs):
        if not kept:
            kept.append(function(*args, **kwargs))
        return kept[0]

    return answer


def changes_with_every_call(function):
    count = itertools.count()

    def answer(*args, **kwargs):
        result, calls = function(*args, **kwargs), next(count)
        change = tensors(lambda t: t + (calls % 3 == 1))
        return change(result) if isinstance(result, torch.Tensor | tuple) else [result, None][calls % 2]

    return answer


def draws_on_the_side(function):
    def answer(*args, **kwargs):
        torch.rand(1)
        return function(*args, **kwargs)

    return answer


def detaches(function):
    return lambda *args, **kwargs: tensors(lambda t: t.detach())(function(*args, **kwargs))


def contiguous_only(function):
    def answer(*args, **kwargs):
        if not all(a.is_contiguous() for a in args if isinstance(a, torch.Tensor)):
            raise RuntimeError("view size is not compatible with input tensor's size and stride")
        return function(*args, **kwargs)

    return answer


def float32_only(function):
    def answer(*args, **kwargs):
        given = [a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
        return function(*given, **kwargs)

    return answer


def square_only(function):
    def answer(*args, **kwargs):
        for a in args:
            if isinstance(a, torch.Tensor) and a.dim() > 1 and a.shape[-1] != a.shape[-2]:
                raise ValueError("shapes do not fit")
        return function(*args, **kwargs)

    return answer


def first_of_the_batch_only(function):
    def answer(*args, **kwargs):
        result = function(*args, **kwargs)
        spread = tensors(lambda t: t[:1].expand_as(t) if t.dim() > 2 and len(t) > 1 else t)
        return spread(result) if isinstance(result, torch.Tensor | tuple) else result

    return answer


# What an exercise takes and gives decides which of these it has to notice.
# texts, numbers, functions or modules in
NO_TENSORS = {"2.5", "3.3", "4.2", "4.5", "5.1", "5.6", "6.6", "6.7", "7.3", "7.4", "7.5", "7.7", "8.2", "8.4"}
# ids in or out; the gradients of 5.3 and 6.5 are tested below
NO_FLOATS = NO_TENSORS | {"5.2", "5.3", "5.4", "5.5", "6.5", "7.6", "8.3"}
MAY_DRAW = {"3.3", "4.2", "4.5", "5.1", "5.6", "7.7"}  # 3.3 draws its inputs, 4.5 its weights; 7.7 may restore it
ALWAYS_THE_SAME = {"4.2", "4.5"}  # no arguments
NO_BATCHES = {"1.1", "1.4", "7.1", "7.2"}
SQUARE = {"1.1", "3.2"}  # (..., T, T), or no matrix at all
APPLIES = {
    zeroes_its_input: lambda e: e.id not in NO_TENSORS,
    keeps_the_first_result: lambda e: e.id not in ALWAYS_THE_SAME,
    changes_with_every_call: lambda e: e.id not in IN_PLACE | {"5.1", "5.6"},
    draws_on_the_side: lambda e: e.id not in MAY_DRAW,
    # a cache is for use without gradients
    detaches: lambda e: e.id not in NO_FLOATS | {"8.1"} or e.id in ("5.3", "6.5"),
    contiguous_only: lambda e: e.id not in NO_TENSORS | {"5.4"},
    float32_only: lambda e: e.id not in NO_FLOATS | {"6.1"},  # whose parameters bring their dtype along
    square_only: lambda e: e.id not in NO_FLOATS | SQUARE,
    first_of_the_batch_only: lambda e: e.id not in NO_FLOATS | NO_BATCHES,
}
MANNERS = [
    pytest.param(exercise, wrap, id=f"{exercise.id} {wrap.__name__}")
    for exercise in EXERCISES.values()
    for wrap, applies in APPLIES.items()
    if applies(exercise)
]


@pytest.mark.parametrize(("exercise", "wrap"), MANNERS)
def test_bad_manners_cost_points(exercise, wrap, briefly):
    report = checked(exercise, functions_and_methods(exercise.reference, wrap))
    assert report.points < exercise.points, str(report)
    assert report.messages


# (i) subtle mistakes -----------------------------------------------------------------------------------


SUBTLE = [
    pytest.param(EXERCISES[exercise_id], answer, id=f"{exercise_id} mistake {number}")
    for number, (exercise_id, answer) in enumerate(SUBTLE_MISTAKES)
]


@pytest.mark.parametrize(("exercise", "answer"), SUBTLE)
def test_subtle_mistakes_cost_points(exercise, answer, briefly):
    report = checked(exercise, answer)
    assert report.points < report.max_points
    assert report.messages


# the suite itself ------------------------------------------------------------------------------------


def test_every_chapters_right_answers_belong_to_an_exercise():
    assert set(RIGHT_ANSWERS) <= set(EXERCISES)


def test_the_checks_judging_half_does_not_import_learners_code():
    """The arrows: what touches the answers imports nothing from what judges them."""
    for file in (ROOT / "utils" / "checks" / "probes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("utils.checks"):
                assert node.module.startswith("utils.checks.probes"), (file.name, node.module)
