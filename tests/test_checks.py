"""The mechanism behind ``check``, on a tiny exercise of its own."""

import pytest
import torch

from utils.checks import EXERCISES, run
from utils.checks.compare import difference, gradients_difference, judge_error, judge_observation, show
from utils.checks.exercise import Exercise, Misconception, Part, as_answers, fault_in, well_formed
from utils.checks.forbidden import Watch, mentioned, plain_name
from utils.checks.probes.observe import (
    Probe,
    Raised,
    Strange,
    apart,
    attempt,
    call_watched,
    laid_out,
    load_parameters,
    plainly,
    to_data,
    watched,
)
from utils.checks.report import Report, Row, marked_up
from utils.checks.yardstick import Yardstick

# A tiny exercise ------------------------------------------------------------------------------------


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


def double_in_place(x):
    return x.mul_(2)


def double_but_not_long(x):
    return 2 * x if len(x) < 5 else x


def triple_if_long(x):
    return 2 * x if len(x) < 5 else 3 * x


ONE = torch.tensor(1)


def vectors(generator):
    return [{"x": torch.rand(3, generator=generator)} for _ in range(2)]


def long_vectors(generator):
    return [{"x": torch.rand(9, generator=generator)} for _ in range(2)]


TINY = Exercise(
    id="0.0",
    title="Twice",
    reference=double,
    parts=(
        Part("values", "Short", 2, "Multiply by two."),
        Part("long", "Long", 1, "The length does not matter.", needs=("values",)),
        Part("manners", "Manners", 1, "", needs=("values",)),
    ),
    probes={
        "values": Probe(vectors, plainly),
        "long": Probe(long_vectors, plainly),
        "manners": Probe(vectors, watched),
    },
    misconceptions=(
        Misconception("long unchanged", double_but_not_long, "Long ones count, too."),
        Misconception("triple if long", triple_if_long, "Long ones are doubled, not tripled."),
        Misconception("triple", triple, "Double, not triple."),
        Misconception("in place", double_in_place, "Leave the input alone."),
    ),
    forbid=frozenset({"ldexp"}),
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(run.EXERCISES, "0.0", TINY)

    def check(answer):
        return run.check("0.0", answer)

    return check


def inputs_and_expected():
    inputs = TINY.inputs(torch.Generator().manual_seed(0))
    return inputs, TINY.probe(double, inputs)


def test_full_points(tiny):
    report = tiny(lambda x: x * 2.0)
    assert (report.points, report.max_points, report.status, report.messages) == (4, 4, "passed", [])


def test_each_part_earns_its_own_points(tiny):
    report = tiny(double_but_not_long)
    assert [row.points for row in report.rows] == [2, 0, 1]
    assert report.teaching == ("Long ones count, too.",)
    assert report.rows[1].fault
    assert report.rows[1].hint == ""  # the teacher's sentence stands in its place


def test_a_part_waits_for_those_it_needs(tiny):
    report = tiny(lambda x: 2 * x if len(x) > 5 else x)
    assert [row.points for row in report.rows] == [0, 0, 0]
    assert report.rows[1].fault == "Counts once the rows above are right."
    assert report.rows[0].hint == "Multiply by two."


def test_a_misconception_that_explains_all_faults_wins(tiny):
    assert tiny(triple).teaching == ("Double, not triple.",)  # not "triple if long", which comes first


def test_different_faults_may_need_different_sentences(tiny):
    def both(x):
        return x.mul_(2) if len(x) < 5 else x

    assert tiny(both).teaching == ("Long ones count, too.", "Leave the input alone.")


def test_a_mistake_that_nobody_thought_of_gets_the_hint(tiny):
    report = tiny(lambda x: 5 * x)
    assert report.teaching == ()
    assert "Multiply by two." in report.messages


@pytest.mark.parametrize(
    "answer", [lambda x: torch.ldexp(x, ONE), lambda x: x.clone().ldexp_(ONE), lambda x: x.ldexp(ONE)]
)
def test_what_is_forbidden_earns_nothing(tiny, answer):
    report = tiny(answer)
    assert report.points == 0
    assert report.messages == ["This exercise is about doing without `ldexp`."]


def test_a_stub_is_open(tiny):
    def stub(x):
        raise NotImplementedError

    report = tiny(stub)
    assert (report.points, report.status, report.messages) == (0, "open", ["Not attempted yet."])


def test_half_a_stub_says_so(tiny):
    def half(x):
        if len(x) > 5:
            raise NotImplementedError
        return 2 * x

    report = tiny(half)
    assert (report.points, report.summary) == (3, "Some of it is not attempted yet.")
    assert [row.status for row in report.rows] == ["passed", "open", "passed"]


def test_settings_changed_by_an_answer_do_not_reach_the_next_case(tiny):
    def answer(x):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return 2 * x

    report = tiny(answer)
    assert [row.points for row in report.rows] == [2, 1, 0]  # without gradients
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


# Observations that nobody would make ----------------------------------------------------------------

MALFORMED = [None, 3, [], {}, "text", [None, None], [{}, {}], [{}], [{}] * 5, [{"result": None}] * 2]
MALFORMED += [[{"result": {}}] * 2, [{"result": object()}] * 2, [{"raised": 1}] * 2, [{"gradients": 1}] * 2]


@pytest.mark.parametrize(
    ("exercise", "malformed"),
    [(TINY, m) for m in MALFORMED] + [(e, m) for e in EXERCISES.values() for m in ([], [{"result": None}] * 2)],
    ids=lambda value: getattr(value, "id", None),
)
def test_malformed_observations_earn_nothing(exercise, malformed):
    yardstick = Yardstick(exercise, 0)
    report = run.report_on(yardstick, dict.fromkeys(yardstick.inputs, malformed))
    assert report.points == 0
    assert report.messages
    assert str(report) and report._repr_html_()


@pytest.mark.parametrize("malformed", [None, [], {}, 3, {"other": []}])
def test_no_observations_at_all_earn_nothing(malformed):
    for exercise in (TINY, EXERCISES["5.2"]):
        assert run.report_on(Yardstick(exercise, 0), malformed).points == 0


@pytest.mark.parametrize("exercise", [TINY, *EXERCISES.values()], ids=lambda e: e.id)
def test_every_single_observation_counts(exercise):
    """Full points once; without any one observation, or any one thing in it, a fault."""
    inputs = {n: cases[:2] for n, cases in exercise.inputs(torch.Generator().manual_seed(0)).items()}
    expected = exercise.probe(exercise.reference, inputs)
    assert not any(exercise.judge(expected, expected, inputs).values())
    for name, observations in expected.items():
        for position, observation in enumerate(observations):
            worse = [{}, *({k: v for k, v in observation.items() if k != key} for key in observation)]
            for other in worse:
                seen = expected | {name: [*observations[:position], other, *observations[position + 1 :]]}
                assert exercise.judge(seen, expected, inputs)[name], (name, position, other.keys())


def test_one_observation_too_few_or_too_many():
    inputs, expected = inputs_and_expected()
    for seen in (expected | {"values": expected["values"][:1]}, expected | {"values": expected["values"] * 2}):
        assert TINY.judge(seen, expected, inputs)["values"]
    assert well_formed(expected | {"more": []}, inputs).keys() == inputs.keys()


def test_a_judge_that_stumbles_finds_a_fault():
    def judge(got, expected, case):
        return got["no such key"]

    assert "can't be compared" in fault_in(judge, {}, {}, {})


# Comparing ------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
T = torch.tensor


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (T([1.0, 2.0]), T([1.0, 2.0])),
        (T([1.0 + 1e-6]), T([1.0])),
        (T([INF, -INF, NAN]), T([INF, -INF, NAN])),
        (T([1, 2]), T([1, 2])),
        (T([], dtype=torch.float32), T([])),
        ((1, "a", None), (1, "a", None)),
        ([T([1.0])], (T([1.0]),)),
        (2.0 + 1e-7, 2.0),
        (INF, INF),
        (None, None),
        (Raised(("ValueError",), "x"), Raised(("ValueError",), "x")),
    ],
)
def test_no_difference(got, expected):
    assert difference(got, expected) is None


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        (T([1.0, 2.5]), T([1.0, 2.0]), "Got [1.0000, 2.5000], expected [1.0000, 2.0000]."),
        (T([[1.0, 2.0]]), T([1.0, 2.0]), "shape (1, 2), expected shape (2,)"),
        (T(1.0), T([1.0]), "shape (), expected shape (1,)"),
        (T([1.0]).double(), T([1.0]), "torch.float64, expected torch.float32"),
        (T([1]), T([1.0]), "torch.int64"),
        (T([NAN]), T([1.0]), "Got NaN"),
        (T([INF]), T([1.0]), "Got inf"),
        (T([-INF]), T([INF]), "-inf"),
        (torch.zeros(3, 3), torch.eye(3), "3 of 9 numbers differ; at [0, 0] got 0.0000, expected 1.0000"),
        (None, T([1.0]), "Is the `return` missing?"),
        (1.0, T(1.0), "Got a float, expected a tensor of shape ()."),
        ("text", T(1.0), "Got a str"),
        (Strange("Thing"), T(1.0), "Got a Thing"),
        (Raised(("KeyError", "LookupError"), "'x'"), T(1.0), "Your code raised KeyError: 'x'"),
        (Raised(("ValueError",), ""), 3, "Your code raised ValueError"),
        ((1, 2), (1, 2, 3), "Got 2 values, expected 3."),
        ((1, 2), [1, 2], "Got a tuple, expected a list of 2."),
        (T([1, 2]), [1, 2], "Got a tensor, expected a list of 2."),
        ([1, 3], [1, 2], "At position 1: Got 3, expected 2."),
        (1, 1.0, "a int; expected a float"),
        (True, 1, "expected a int"),
        (1.01, 1.0, "Got 1.0100, expected 1.0000."),
        (NAN, 1.0, "Got nan"),
        ("b", "a", "Got 'b', expected 'a'."),
        (3, None, "expected a NoneType"),
        (3, Raised(("ValueError",), "x"), "Got 3, expected ValueError: x."),
    ],
)
def test_difference_says_what_is_wrong(got, expected, says):
    assert says in difference(got, expected)


def test_gradients():
    ones, none = [torch.ones(2)], [None]
    assert gradients_difference(ones, [torch.ones(2)]) is None
    assert gradients_difference(none, [torch.zeros(2)]) is None
    assert gradients_difference(none, none) is None
    assert "No gradient reaches input number 1." in gradients_difference(none, ones)
    assert "is wrong" in gradients_difference([torch.zeros(2)], ones)
    assert "raised RuntimeError" in gradients_difference(Raised(("RuntimeError",), "no graph"), ones)
    for unreadable in ([], ones * 2, 3, None, "text", Strange("dict")):
        assert gradients_difference(unreadable, ones)
    for odd in ([3], ["text"], [Strange("sparse")]):
        assert gradients_difference(odd, ones)


def test_judging_an_observation():
    assert judge_observation({"result": 1, "more": 2}, {"result": 1}, {}) is None
    assert judge_observation({"result": 2}, {"result": 1}, {}) == "Got 2, expected 1."
    assert judge_observation({"size": 2}, {"size": 1}, {}).startswith("size: ")
    assert "stopped" in judge_observation({}, {"result": 1}, {})
    assert "changes its input" in judge_observation({"inputs_unchanged": False}, {"inputs_unchanged": True}, {})
    raised = Raised(("TypeError",), "no")
    assert judge_observation({"raised": raised}, {"result": 1}, {}) == "Your code raised TypeError: no"
    assert judge_observation({"same_again": raised}, {"same_again": True}, {}) == "Your code raised TypeError: no"


def test_judging_an_error():
    case = {"names": ["42"]}
    assert judge_error({"error": Raised(("ValueError", "Exception"), "not 42")}, {}, case) is None
    assert judge_error({"error": Raised(("Own", "AssertionError"), "42")}, {}, case) is None
    assert judge_error({"raised": Raised(("ValueError",), "42")}, {}, case) is None
    assert "should name '42'" in judge_error({"error": Raised(("ValueError",), "no")}, {}, case)
    assert "Expected a ValueError" in judge_error({"error": Raised(("KeyError",), "42")}, {}, case)
    assert "Expected an error, got 3." in judge_error({"error": 3}, {}, case)
    assert "Expected an error" in judge_error({}, {}, case)


def test_show_keeps_to_one_short_line():
    assert show(T(3)) == "3"
    assert show(torch.zeros(2, 2)) == "a tensor of shape (2, 2)"
    for value in ("x" * 1000, ["a\nb"] * 500, Raised(("ValueError",), "line\n" * 500)):
        assert len(show(value)) <= 400
        assert "\n" not in show(value)


# Observing ------------------------------------------------------------------------------------------


class Loud(ValueError):
    pass


def test_attempt_turns_exceptions_into_data():
    def fails():
        raise Loud("<object at 0x7f0123456789> is no tensor")

    raised = attempt(fails)
    assert raised.kinds[:2] == ("Loud", "ValueError")
    assert raised.message == "<object> is no tensor"
    assert not raised.is_stub
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_to_data_keeps_plain_things_only():
    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    assert type(to_data(Text("a"))) is str
    assert to_data([1, (2.5, "x", None, True)]) == [1, (2.5, "x", None, True)]
    assert to_data({1: 2}) == Strange("dict")
    assert isinstance(to_data(torch.eye(2).to_sparse()), Strange)
    assert isinstance(to_data(torch.eye(2, device="meta")), Strange)
    leaf = torch.ones(2, requires_grad=True)
    copy = to_data(leaf)
    assert not copy.requires_grad
    assert copy.data_ptr() != leaf.data_ptr()
    assert type(to_data(torch.nn.Parameter(torch.ones(2)))) is torch.Tensor


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 1, 3, 4)])
def test_strided_tensors_hold_the_same_numbers(shape):
    tensor = torch.rand(shape)
    for strided in (laid_out(tensor, True), apart(tensor)):
        assert torch.equal(strided, tensor)
        assert not strided.is_contiguous()
    if len(shape) > 2:
        with pytest.raises(RuntimeError):
            laid_out(tensor, True).view(-1, shape[-1])
    assert apart(tensor).view(-1).shape == (tensor.numel(),)  # gaps alone do not stop a view


def test_watching_a_call():
    seen = call_watched(double, torch.ones(2))
    assert seen.pop("same_again") is seen.pop("inputs_unchanged") is True
    assert seen.pop("random_state_unchanged") is seen.pop("other_random_states_unchanged") is True
    assert torch.equal(seen["gradients"][0], T([1.0, 3.0]))  # 2 times the weights 0.5 and 1.5
    assert torch.equal(seen["on_other_numbers"], T([2.0, 2.0]))
    assert call_watched(double_in_place, torch.ones(2))["inputs_unchanged"] is False
    assert call_watched(lambda x: x + torch.rand(1), torch.ones(2))["random_state_unchanged"] is False


def test_loading_parameters():
    linear = torch.nn.Linear(2, 1)
    numbers = {"weight": torch.ones(1, 2).double(), "bias": torch.zeros(1).double()}
    assert torch.equal(load_parameters(linear, numbers).weight, numbers["weight"])
    with pytest.raises(ValueError, match="weight"):
        load_parameters(linear, {"bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        load_parameters(linear, numbers | {"bias": torch.zeros(2)})


def test_each_part_starts_with_the_same_global_seed():
    def noise(x):
        return x + torch.rand(3)

    inputs = {"values": vectors(torch.Generator().manual_seed(0))}
    first, again = TINY.probe(noise, inputs), TINY.probe(noise, inputs)
    assert all(map(run.same_behaviour, first["values"], again["values"]))


# Noticing what is forbidden --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("dot", "dot"),
        ("__matmul__", "matmul"),
        ("__rmatmul__", "matmul"),
        ("__imatmul__", "matmul"),
        ("softmax_", "softmax"),
        ("_softmax", "softmax"),
        ("special_softmax", "softmax"),
        ("linalg_vecdot", "vecdot"),
        ("dot.default", "dot"),
        ("Softmax", "softmax"),
        ("masked_fill", "masked_fill"),
        ("cumsum_", "cumsum"),
        ("logcumsumexp", "logcumsumexp"),
        ("multi_head_attention_forward", "MultiheadAttention"),
        ("_native_multi_head_attention", "MultiheadAttention"),
        ("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"),
        ("_scaled_dot_product_attention_math.default", "scaled_dot_product_attention"),
        ("native_dropout", "dropout"),
        ("feature_alpha_dropout_", "dropout"),
        ("Dropout2d", "dropout"),
        ("apply_dropout", "apply_dropout"),
    ],
)
def test_plain_names(name, plain):
    assert plain_name(name) == plain


def test_watch_notes_only_what_it_watches():
    with Watch({"exp"}) as watch:
        torch.ones(2).sum().exp_().log()
    assert watch.used == {"exp"}


def sums(rows):
    total = 0
    while rows:
        total += rows.pop()
    return total


def doubled(rows):
    return sum(2 * row for row in rows)


def plain(rows):
    """No for, no while."""
    return rows  # for nothing


@pytest.mark.parametrize(("answer", "found"), [(sums, {"loop"}), (doubled, {"loop"}), (plain, set())])
def test_mentioned_finds_loops(answer, found):
    assert mentioned(answer, {"loop"}) == found
    assert mentioned(answer, {"dot"}) == set()


def test_mentioned_survives_what_has_no_source():
    looped = lambda: None  # noqa: E731
    looped.__wrapped__ = looped
    looped.__name__ = "looped"
    for answer in (len, torch.dot, object(), eval("lambda x: x"), looped, type("Made", (), {})):
        assert mentioned(answer, {"dot"}) == set()


# The report -----------------------------------------------------------------------------------------

ROWS = (Row("good", 2, 2, "passed"), Row("bad", 0, 1, "failed", "a < b & `c`", "hint"), Row("later", 0, 3, "open"))


def test_report():
    report = Report("0.1", "Title", "summary", ROWS, ("sentence",))
    assert (report.points, report.max_points, report.status, repr(report)) == (2, 6, "failed", "2")
    assert report.messages == ["sentence", "summary", "a < b & `c`", "hint"]
    assert str(report) == (
        "✗ Exercise 0.1 · Title: 2 of 6 points\n"
        "  → sentence\n"
        "  → summary\n"
        "  ✓ good (2/2)\n"
        "  ✗ bad (0/1)\n"
        "      a < b & `c`\n"
        "      hint\n"
        "  ○ later (0/3)"
    )
    html = report._repr_html_()
    assert "a &lt; b &amp; <code>c</code>" in html
    assert html.count("<li") == html.count("</li>") == 3


@pytest.mark.parametrize(
    ("rows", "status"), [(ROWS[:1], "passed"), (ROWS[2:], "open"), (ROWS, "failed"), ((), "failed")]
)
def test_status(rows, status):
    assert Report("0.1", "", "", rows).status == status


def test_marked_up():
    assert marked_up("`a` and `b`") == "<code>a</code> and <code>b</code>"
    assert marked_up("one ` only") == "one ` only"
    assert marked_up("`<b>`") == "<code>&lt;b&gt;</code>"


def test_as_answers():
    assert as_answers(double) == (double,)
    assert as_answers((double, triple)) == (double, triple)
