"""Which cell is the answer, what it needs, and what it mentions: read, never run."""

import ast
import time

import pytest

from utils.grading.inside.reading import (
    facts_of,
    fingerprint,
    last_bindings,
    mentions,
    parsed,
    reach,
    read_cell,
    read_notebook,
    what_binds,
    without_magics,
)

STUB = '# EXERCISE 3.2\ndef f(x):\n    """What it does."""\n    # YOUR CODE HERE\n    raise NotImplementedError()\n'
RIGHT = "# EXERCISE 3.2\ndef f(x):\n    return x + 1\n"
OTHER = "# EXERCISE 3.2\ndef f(x):\n    return x + 2\n"


def cell(source: str, exercise: str | None = None, is_own: bool = True) -> dict:
    """A cell as the trusted process hands it over."""
    return {"source": source, "exercise": exercise, "is_own": is_own}


def answer(source: str) -> dict:
    """A cell that is marked as the answer."""
    return cell(source, "3.2")


def read(*cells: dict, course: tuple[str, ...] = (), names: tuple[str, ...] = ("f",), forbid=()) -> dict:
    """What reading these cells gives."""
    exercises = {"3.2": {"names": list(names), "stub": fingerprint(read_cell(0, STUB)), "forbid": sorted(forbid)}}
    return read_notebook({"cells": list(cells), "course": facts_of(course), "exercises": exercises})


def found(*cells: dict, **options) -> dict:
    """What was found of the exercise."""
    return read(*cells, **options)["exercises"]["3.2"]


def needed(*cells: dict, **options) -> list[str]:
    """The statements that the answer needs, as texts, in order."""
    plan = read(*cells, **options)
    return [text.splitlines()[0] for text in statements(plan)]


def statements(plan: dict) -> list[str]:
    """The texts of the statements that the answer needs, by a plan."""
    sources = dict(plan["cells"])
    return [ast.unparse(parsed(sources[cell]).body[place]) for cell, place in plan["exercises"]["3.2"]["needs"]]


# Which cell counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "state", "chosen"),
    [
        ([], "missing", None),
        ([cell("x = 1")], "missing", None),
        ([answer(STUB)], "open", 0),
        ([answer("")], "open", 0),
        ([answer("  \n")], "open", 0),
        ([answer(RIGHT)], "answered", 0),
        ([answer(RIGHT), answer(OTHER)], "answered", 1),  # the last one
        ([answer(RIGHT), answer(STUB)], "answered", 0),  # unless it is the stub
        ([answer(STUB), answer(RIGHT), answer(STUB)], "answered", 1),
        ([answer(STUB), cell("def f(x):\n    return x")], "answered", 1),  # below the stub, unmarked
        ([cell("def f(x):\n    return x"), answer(STUB)], "answered", 0),  # or above it
        ([cell("f = len"), cell("f = abs")], "answered", 1),
        ([cell("def f(x):\n    return 0"), answer(RIGHT)], "answered", 1),  # a marked one comes first
        ([answer(RIGHT), cell("def f(x):\n    return 0")], "answered", 0),
        ([answer(RIGHT), answer("# EXERCISE 3.2\nprint(f(1))")], "answered", 0),  # defines nothing
        ([answer(RIGHT), answer("# EXERCISE 3.2\ndef f(x:")], "answered", 0),  # is no Python
        ([answer("# EXERCISE 3.2\nresult = 3")], "answered", 0),
        ([cell("def f(x):\n    return x", is_own=False)], "missing", None),  # the course's
        ([cell("def f(x):\n    return x", exercise="3.3")], "missing", None),  # another exercise's
    ],
)
def test_the_cell_that_counts(cells, state, chosen):
    result = found(*cells)
    assert (result["state"], result["cell"]) == (state, chosen)


@pytest.mark.parametrize(
    "source",
    [
        STUB.replace("# YOUR CODE HERE", "# no idea yet"),
        STUB.replace("    # YOUR CODE HERE\n", "\n\n"),
        STUB.replace('"""What it does."""', "'''Does it.'''"),
        STUB.replace('    """What it does."""\n', ""),
        STUB.replace("# EXERCISE 3.2\n", ""),
        STUB.replace("    ", "  "),
        STUB.replace("NotImplementedError()", "NotImplementedError( )"),
        "%%time\n" + STUB,
    ],
)
def test_a_stub_with_other_comments_or_layout_is_still_a_stub(source):
    assert found(answer(source))["state"] == "open"


@pytest.mark.parametrize(
    "source", [STUB + "y = 1\n", STUB.replace("f(x)", "f(x, y=1)"), STUB.replace("raise NotImplementedError()", "pass")]
)
def test_a_stub_with_other_code_is_an_attempt(source):
    assert found(answer(source))["state"] == "answered"


def test_copies_are_counted_for_the_flag():
    assert found(answer(STUB), answer(RIGHT), answer(OTHER))["copies"] == 3
    assert found(answer(STUB), cell("def f(x): return x"))["copies"] == 1


def test_all_names_of_an_exercise_have_to_be_in_one_cell():
    both = "def f(x):\n    return x\ndef g(x):\n    return x"
    assert found(cell("def f(x): return x"), cell("def g(x): return x"), names=("f", "g"))["state"] == "missing"
    assert found(cell(both), names=("f", "g"))["state"] == "answered"


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda x: x",
        "def g(x): return x\nf = g",
        "class f: pass",
        "async def f(x): return x",
        "from math import sqrt as f",
        "import math as f",
        "f: object = len",
        "f, g = len, abs",
        "if True:\n    def f(x): return x",
        "try:\n    f = len\nexcept Exception:\n    pass",
        "with open('x') as f: pass",
        "for f in [len]: pass",
        "(f := len)",
        "@staticmethod\ndef f(x): return x",
    ],
)
def test_every_way_to_give_a_name_a_value_is_seen(source):
    result = found(answer(source))
    assert result["state"] == "answered" and not result["error"]


@pytest.mark.parametrize("source", ["def g():\n    f = 1", "class A:\n    def f(self): pass", "x = [f for f in []]"])
def test_a_name_inside_a_function_or_class_is_no_answer(source):
    if source.startswith("class"):
        assert found(cell(source))["state"] == "missing"
    else:
        assert "f" not in read_cell(0, source).binds


@pytest.mark.parametrize(
    "source", ["match 1:\n    case f: pass", "try:\n    pass\nexcept ValueError as f:\n    pass", "global f\nf = 1"]
)
def test_rare_bindings_do_no_harm(source):
    assert found(answer(RIGHT + source))["state"] == "answered"


# What can't be read -------------------------------------------------------------------------------------


def test_a_syntax_error_is_told_with_its_line():
    result = found(answer("# EXERCISE 3.2\ndef f(x):\n    return x +\n"))
    assert result["state"] == "answered"
    assert result["error"] == "SyntaxError: invalid syntax (line 3 of the cell)"


def test_a_missing_name_is_told():
    assert found(answer("# EXERCISE 3.2\nresult = 3"))["error"] == "The cell defines no `f`."


@pytest.mark.parametrize(
    "source",
    [
        "return 3",
        "def f(x):\n\treturn x\n        y",
        "x = '\0'",
        "def f(x, x): pass",
        "await f",
        "break",
        "(" * 500,
        "-" * 100_000 + "1",
        "x = " + "[" * 5000 + "]" * 5000,
        "f'{'",
        "print 'hello'",
        "\udce9",
        "a" * 2_000_000 + "(",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_python_costs_only_its_own_cell(source):
    plan = read(answer(RIGHT), cell(source))
    assert plan["exercises"]["3.2"]["state"] == "answered" and not plan["exercises"]["3.2"]["error"]
    error = read_cell(0, source).error
    assert len(error) <= 300


def test_an_error_in_an_answer_with_half_a_surrogate_pair_can_be_told():
    result = found(answer("# EXERCISE 3.2\ndef f(x):\n    return '\udce9'\n"))
    assert result["state"] == "answered"


# Magics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "magic", ["%%time\n", "%%time\n\n", "%%capture\n", "%%capture out\n", "%%prun\n", "\n%%time\n"]
)
def test_a_cell_that_is_timed_counts_as_what_it_runs(magic):
    result = found(answer(magic + RIGHT))
    assert result["state"] == "answered" and not result["error"]


@pytest.mark.parametrize(
    "line",
    ["%matplotlib inline", "!pip list", "files = !ls", "?print", "print?", "%timeit f(1)", "x = %who", "%cd /tmp"],
)
def test_magics_in_an_answer_cell_do_not_hide_it(line):
    result = found(answer(f"{RIGHT}{line}\n"))
    assert result["state"] == "answered" and not result["error"]


def test_a_cell_for_another_language_is_no_error_of_the_answer():
    assert not found(answer(RIGHT), cell("%%bash\necho $((1 +"))["error"]


def test_a_percent_sign_that_is_python_stays():
    assert without_magics("x = 7 %3") == "x = 7 %3\n"


# What an answer needs --------------------------------------------------------------------------------------


def test_helpers_constants_and_imports_are_needed():
    cells = (
        cell("import math\nimport os"),
        cell("SCALE = math.pi\nUNUSED = 3"),
        cell("def helper(x):\n    return x * SCALE\ndef other(x):\n    return x"),
        answer("# EXERCISE 3.2\nprint('hello')\ndef f(x):\n    return helper(x)\nf(1)"),
    )
    assert needed(*cells) == ["import math", "SCALE = math.pi", "def helper(x):", "def f(x):"]


def test_the_last_definition_of_a_helper_is_the_one_that_counts():
    cells = (cell("def helper(x):\n    return 1"), answer("def f(x):\n    return helper(x)"), cell("helper = abs"))
    assert needed(*cells) == ["def f(x):", "helper = abs"]


def test_what_changes_a_definition_belongs_to_it():
    cells = (
        answer("class f:\n    pass"),
        cell("f = f"),
        answer("class f:\n    pass\ndef forward(self):\n    return 1\nf.forward = forward"),
    )
    assert needed(*cells) == ["class f:", "def forward(self):", "f.forward = forward"]


def test_a_patch_in_a_later_cell_counts_for_helpers():
    cells = (
        cell("class Helper:\n    pass"),
        answer("def f(x):\n    return Helper()(x)"),
        cell("Helper.__call__ = lambda self, x: x"),
    )
    assert "Helper.__call__ = lambda self, x: x" in needed(*cells)


@pytest.mark.parametrize(
    "change",
    [
        "TABLE += [1]",
        "TABLE[0] = 1",
        "TABLE.x = 1",
        "TABLE = TABLE + [1]",
        "for TABLE[0] in [1]: pass",
    ],
)
def test_a_constant_is_needed_with_its_changes(change):
    cells = (cell(f"TABLE = [0]\n{change}"), answer("def f(x):\n    return TABLE"))
    assert len(needed(*cells)) == 3


@pytest.mark.parametrize("change", ["TABLE.append(1)", "TABLE.update(a=1)"])
def test_a_constant_is_needed_with_calls_that_change_it(change):
    cells = (cell(f"TABLE = []\n{change}"), answer("def f(x):\n    return TABLE"))
    assert len(needed(*cells)) == 3


def test_a_decorator_is_needed():
    cells = (
        cell(
            "import functools\ndef loud(g):\n    @functools.wraps(g)\n    def h(x):\n        return g(x)\n    return h"
        ),
        answer("@loud\ndef f(x):\n    return x"),
    )
    assert needed(*cells) == ["import functools", "def loud(g):", "@loud"]


@pytest.mark.parametrize(
    "definition",
    [
        "def f(x, y=CONSTANT):\n    return y",
        "def f(x: CONSTANT):\n    return x",
        "class f(CONSTANT):\n    pass",
        "class f:\n    def g(self):\n        return [CONSTANT for _ in range(3)]",
        "f = lambda x: (lambda: CONSTANT)()",
        "def f(x):\n    def g():\n        return CONSTANT\n    return g()",
        "def f(x):\n    return f'{CONSTANT}'",
        "f = [CONSTANT][0]",
    ],
)
def test_a_name_is_asked_for_wherever_it_stands(definition):
    assert needed(cell("CONSTANT = object"), answer(definition))[0] == "CONSTANT = object"


def test_a_local_name_asks_for_nothing():
    cells = (cell("helper = slow()"), answer("def f(x):\n    helper = x\n    return helper"))
    assert needed(*cells) == ["def f(x):"]


def test_mutual_recursion_ends():
    assert len(needed(cell("def g(x):\n    return f(x)"), answer("def f(x):\n    return g(x)"))) == 2


def test_course_statements_that_anything_asks_for_are_run_and_no_others():
    course = ("import torch\nfrom math import pi", "x = torch.ones(2)\ny = x * pi", "z = train()")
    plan = read(answer("def f(a):\n    return y"), course=course)
    assert plan["course"] == ["import torch", "from math import pi", "x = torch.ones(2)", "y = x * pi"]


def test_a_cell_that_may_not_run_is_not_in_the_plan():
    plan = read(cell("train()", is_own=False), answer(RIGHT), cell("bad syntax here"))
    assert [number for number, _ in plan["cells"]] == [1]


def test_all_own_cells_are_in_the_plan_with_what_is_needed_of_them():
    plan = read(cell("print(1)"), answer(RIGHT))
    assert [number for number, _ in plan["cells"]] == [0, 1]
    assert plan["exercises"]["3.2"]["needs"] == [[1, 0]]


def test_what_binds_follows_chains():
    facts = facts_of(["a = 1", "b = a", "c = b", "d = 4"])
    assert [fact["source"] for fact in what_binds(facts, {"c"})] == ["a = 1", "b = a", "c = b"]


def test_reaching_takes_each_statement_once():
    own = read_cell(0, "a = 1\nb = a\nc = a + b").statements
    assert len(reach([own[2]], last_bindings(own))) == 3


def test_ten_thousand_statements_take_less_than_a_moment():
    began = time.monotonic()
    read(cell("\n".join(f"x{i} = {i}" for i in range(10_000))), answer(RIGHT))
    assert time.monotonic() - began < 10


# What an answer mentions --------------------------------------------------------------------------------------

FORBID = ("softmax", "matmul", "dot", "loop")


def used(*cells: dict, course: tuple[str, ...] = ()) -> list[str]:
    """The forbidden names that count against the answer."""
    return found(*cells, forbid=FORBID, course=course)["used"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    return torch.softmax(x, -1)", ["softmax"]),
        ("def f(x):\n    return x.softmax(-1)", ["softmax"]),
        ("def f(x):\n    return torch.special.softmax(x)", ["softmax"]),
        ("def f(x):\n    return nn.Softmax(-1)(x)", ["softmax"]),
        ("def f(x):\n    return x @ x", ["matmul"]),
        ("def f(x):\n    x @= x\n    return x", ["matmul"]),
        ("def f(x):\n    from torch import softmax\n    return softmax(x)", ["softmax"]),
        ("def f(x):\n    return [y for y in x]", ["loop"]),
        ("def f(x):\n    while x:\n        pass", ["loop"]),
        ("def f(x):\n    def g():\n        return x @ x\n    return g()", ["matmul"]),
        ("f = lambda x: x @ x", ["matmul"]),
        ("f = torch.softmax", ["softmax"]),
        ("from torch import softmax as f", ["softmax"]),
        ("from torch.nn.functional import softmax\ndef f(x):\n    return softmax(x, -1)", ["softmax"]),
        ("import torch\ng = torch.softmax\ndef f(x):\n    return g(x, -1)", ["softmax"]),
        ("class f:\n    def forward(self, x):\n        return x.dot(x)", ["dot"]),
        ("class f:\n    softmax = 3\n    def g(self):\n        return self.softmax", []),
        ("def f(x):\n    # torch.softmax\n    'x @ x'\n    return x", []),
        ("def f(x):\n    softmax = 3\n    return softmax", []),
        ("def f(x):\n    return x", []),
    ],
)
def test_what_the_answers_own_cell_mentions(source, names):
    assert used(answer(source)) == names


def test_helpers_count_wherever_they_stand():
    assert used(cell("def g(x):\n    return x @ x"), answer("def f(x):\n    return g(x)")) == ["matmul"]
    assert used(answer("def f(x):\n    return g(x)"), cell("def g(x):\n    return x.softmax(-1)")) == ["softmax"]
    chain = (cell("def h(x):\n    return x @ x"), cell("def g(x):\n    return h(x)"))
    assert used(*chain, answer("def f(x):\n    return g(x)")) == ["matmul"]


def test_aliases_count():
    assert used(cell("mine = torch.softmax"), answer("def f(x):\n    return mine(x, -1)")) == ["softmax"]
    assert used(cell("from torch import softmax as mine"), answer("def f(x):\n    return mine(x)")) == ["softmax"]
    assert used(cell("import functools\nmine = functools.partial(torch.softmax, dim=-1)"), answer("f = mine")) == [
        "softmax"
    ]


def test_scratch_cells_do_not_matter():
    scratch = "x = torch.ones(2)\nprint(x @ x, torch.softmax(x, -1))\nfor i in range(3):\n    print(i)"
    assert used(cell(scratch), answer(RIGHT), cell("def g(x):\n    return x @ x")) == []


def test_a_local_variable_with_the_name_of_a_scratch_global_does_not_matter():
    scratch = "def weights(x):\n    return torch.softmax(x, -1)\nscores = a @ b"
    mine = "def f(x):\n    weights = x.exp()\n    scores = weights / weights.sum()\n    return scores"
    assert used(cell(scratch), answer(mine)) == []


def test_a_parameter_with_the_name_of_a_scratch_global_does_not_matter():
    assert used(cell("def g(x):\n    return x @ x"), answer("def f(g):\n    return g + 1")) == []


def test_a_constant_that_was_computed_with_what_is_forbidden_does_not_matter():
    """What runs once, at import, is not how the answer works on its cases."""
    assert used(cell("TRIANGLE = torch.ones(2) @ torch.ones(2)"), answer("def f(x):\n    return TRIANGLE")) == []


def test_the_names_in_an_earlier_attempt_do_not_matter():
    assert used(answer("def f(x):\n    return x @ x"), answer(RIGHT)) == []
    assert used(answer("def f(x):\n    return x @ x\n\ndef f(x):\n    return x + 1")) == []


def test_a_tuple_of_names_is_read_like_one():
    assert mentions(parsed("f, g = torch.softmax, 1").body[0], FORBID) == {"softmax"}
