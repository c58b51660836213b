"""What learners do to notebooks besides answering: untidy, and worth no point less.

Each habit takes a notebook as it would be handed in and returns a changed copy.

>>> sorted(HABITS)[0]
'added_markdown'
"""

import ast
import copy
import random
from collections.abc import Callable

from answer_sources import bound_by, global_names, imported
from answer_variants import asked_for, cells_of
from nbformat import NotebookNode, from_dict
from nbformat.v4 import new_code_cell, new_markdown_cell

from utils.release import ANSWER, role_of

Habit = Callable[[NotebookNode], NotebookNode]
HABITS: dict[str, Habit] = {}


def habit(function: Habit) -> Habit:
    """Adds a habit to ``HABITS``; it gets a copy of the notebook, which it may change."""

    def with_copy(notebook: NotebookNode) -> NotebookNode:
        copied = copy.deepcopy(notebook)
        return function(copied) or copied

    with_copy.__doc__ = function.__doc__
    HABITS[function.__name__] = with_copy
    return with_copy


# Finding cells -------------------------------------------------------------------------------------


def is_answer(cell: NotebookNode) -> bool:
    """Whether it is an answer cell that still says so, at its top."""
    return role_of(cell)[0] == "answer"


def is_solved(cell: NotebookNode) -> bool:
    """Whether it is an answer cell with something in it."""
    return is_answer(cell) and "YOUR CODE HERE" not in cell.source


def is_import(cell: NotebookNode) -> bool:
    """Whether a course cell imports and does nothing else."""
    if cell.cell_type != "code" or "course" not in cell.metadata.get("tags", []):
        return False
    return all(isinstance(s, ast.Import | ast.ImportFrom) for s in statements(cell.source))


def statements(source: str) -> list[ast.stmt]:
    """The top level of a cell; nothing for one that isn't Python."""
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def put_before(notebook: NotebookNode, place: int, *sources: str) -> None:
    """New code cells, as a learner adds them."""
    notebook.cells[place:place] = [fresh(source) for source in sources]


def fresh(source: str) -> NotebookNode:
    """A code cell with nothing but its text; its id depends on that only, so that a class is the same every time."""
    return new_code_cell(source, id=f"{random.Random(source).getrandbits(32):08x}")


def stub_of(cell: NotebookNode) -> str:
    """What stood in an answer cell before it was filled in."""
    return cells_of(role_of(cell)[1], "answer")[0].source


def place_of_cell(notebook: NotebookNode, cell: NotebookNode) -> int:
    """The number of this very cell; another one may have the same text."""
    return next(number for number, other in enumerate(notebook.cells) if other is cell)


def middle(notebook: NotebookNode) -> int:
    """A place amid the exercises: right before the last check."""
    return max(number for number, cell in enumerate(notebook.cells) if role_of(cell)[0] == "check")


# Cells of their own --------------------------------------------------------------------------------


@habit
def own_helper_cells(notebook):
    """Helpers stand in a cell above the answer that uses them."""
    for cell in [cell for cell in notebook.cells if is_solved(cell)]:
        names = asked_for(role_of(cell)[1])
        lines, tree = cell.source.splitlines(), statements(cell.source)
        tail = len(tree)
        while tail and set(bound_by(tree[tail - 1])) & set(names):
            tail -= 1
        helpers_bind = {name for statement in tree[:tail] for name in bound_by(statement)}
        if tail == len(tree) or not helpers_bind or helpers_bind & set(names):
            continue
        cut = tree[tail - 1].end_lineno
        put_before(notebook, place_of_cell(notebook, cell), "# my helpers\n" + "\n".join(lines[1:cut]).strip("\n"))
        cell.source = lines[0] + "\n" + "\n".join(lines[cut:]).strip("\n")


@habit
def scratch_cells(notebook):
    """Trying things out: prints, a plot, a warning, an error, output to stderr."""
    put_before(
        notebook,
        middle(notebook),
        "print('does it work?')\nfor i in range(20):\n    print(i, end=' ')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()",
        "import warnings\nwarnings.warn('careful')",
        "import sys\nprint('something is wrong', file=sys.stderr)",
        "undefined_name + 1",
        "assert 1 == 2, 'why is this not equal?'",
        "raise RuntimeError('stop here')",
    )


@habit
def magics(notebook):
    """Lines and cells for IPython, not for Python."""
    put_before(notebook, 2, "%matplotlib inline\n%load_ext autoreload\n%autoreload 2", "!pip list")
    put_before(
        notebook,
        middle(notebook),
        "%%time\nsum(range(1000))",
        "%timeit -n 1 -r 1 sum(range(10))",
        "files = !ls\nprint(len(files))",
        "%%bash\necho hello",
        "?print",
    )


@habit
def timed_answers(notebook):
    """``%%time`` at the top of an answer cell."""
    for cell in [cell for cell in notebook.cells if is_solved(cell)][::2]:
        cell.source = "%%time\n" + cell.source


@habit
def syntax_errors(notebook):
    """Cells that are no Python."""
    put_before(notebook, middle(notebook), "def unfinished(x):", "TODO ask about this", "print('a' 'b'", "x = = 3")


@habit
def asks_for_input(notebook):
    """A cell that waits for somebody at the keyboard."""
    put_before(notebook, middle(notebook), "name = input('your name? ')\nprint('hello', name)")


@habit
def leaves_early(notebook):
    """Cells that end the program."""
    put_before(notebook, middle(notebook), "import sys\nsys.exit(1)", "exit()")


@habit
def added_markdown(notebook):
    """Notes between the cells, one of which looks a little like a mark of the course."""
    for number, text in ((middle(notebook), "**EXERCISE** notes: ask in class"), (1, "# My notes\n\nlearn softmax")):
        notebook.cells.insert(number, new_markdown_cell(text, id=f"note-{number}"))


# Answers in other places ---------------------------------------------------------------------------


@habit
def stub_after_the_answer(notebook):
    """The answer cell copied before it was filled in: a stub follows the answer, with the same metadata."""
    for cell in [cell for cell in notebook.cells if is_solved(cell)][::2]:
        unsolved = copy.deepcopy(cell)
        unsolved.source = stub_of(cell)
        unsolved.id = f"{cell.get('id', 'cell')}-copy"
        notebook.cells.insert(place_of_cell(notebook, cell) + 1, unsolved)


@habit
def answers_below_the_stub(notebook):
    """The course's cell stays as it was; the answer stands in a new one below, which repeats the first line."""
    for cell in [cell for cell in notebook.cells if is_solved(cell)][::2]:
        notebook.cells.insert(place_of_cell(notebook, cell) + 1, fresh(cell.source))
        cell.source = stub_of(cell)


@habit
def answers_in_new_cells(notebook):
    """The answer cell cut out and pasted as a new one: no metadata, another id."""
    notebook.cells = [fresh(cell.source) if is_solved(cell) else cell for cell in notebook.cells]


@habit
def answers_without_their_mark(notebook):
    """New cells as above, the first line lost as well: only the name tells what it answers."""
    cells = []
    for cell in notebook.cells:
        cells.append(fresh(ANSWER.sub("#", cell.source)) if is_solved(cell) else cell)
    notebook.cells = cells


@habit
def first_lines_lost(notebook):
    """``# EXERCISE 3.2`` deleted; the metadata stays."""
    for cell in notebook.cells:
        if is_solved(cell):
            cell.source = cell.source.split("\n", 1)[1]


# The course's cells --------------------------------------------------------------------------------


@habit
def imports_deleted(notebook):
    """The course's imports are gone; every answer brings those that it needs."""
    imports: dict[str, ast.stmt] = {}
    for cell in notebook.cells:
        if is_import(cell):
            for statement in statements(cell.source):
                for alias in statement.names:
                    single = copy.copy(statement)
                    single.names = [alias]
                    imports |= dict.fromkeys(imported(single), single)
    for cell in [cell for cell in notebook.cells if is_solved(cell)]:
        tree = statements(cell.source)
        bound = {name for s in tree if isinstance(s, ast.Import | ast.ImportFrom) for name in imported(s)}
        wanted = sorted((global_names(cell.source) & imports.keys()) - bound) if tree else []
        if wanted:
            first, rest = cell.source.split("\n", 1)
            cell.source = "\n".join([first, *(ast.unparse(imports[name]) for name in wanted), "", rest])
    notebook.cells = [cell for cell in notebook.cells if not is_import(cell)]


@habit
def course_cells_edited(notebook):
    """Other numbers in the course's cells, a print added, one of them emptied."""
    course = [c for c in notebook.cells if "course" in c.metadata.get("tags", []) and not is_import(c)]
    for cell in course[::3]:
        cell.source = cell.source.replace("torch.manual_seed(123)", "torch.manual_seed(7)") + "\nprint('I was here')"
    course[-1].source = ""


@habit
def course_cells_deleted(notebook):
    """Most of what the course shows is gone; its imports stay."""
    kept = {"text", "course", "training"}
    notebook.cells = [c for c in notebook.cells if is_import(c) or not kept & set(c.metadata.get("tags", []))]


@habit
def checks_deleted(notebook):
    """No check cells any more."""
    notebook.cells = [cell for cell in notebook.cells if role_of(cell)[0] != "check"]


# How the file was saved ----------------------------------------------------------------------------


@habit
def outputs_cleared(notebook):
    """Restart and clear."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


@habit
def metadata_stripped(notebook):
    """A tool removed all metadata."""
    notebook.metadata = from_dict({})
    for cell in notebook.cells:
        cell.metadata = from_dict({})


@habit
def saved_by_colab(notebook):
    """nbformat 4.0: no ids, Colab's own metadata."""
    notebook.nbformat_minor = 0
    notebook.metadata = from_dict(
        {
            "colab": {"provenance": [], "toc_visible": True},
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        its_id = cell.pop("id", "none")
        cell.metadata = from_dict({**cell.metadata, "id": its_id})
        if cell.get("outputs"):
            cell.metadata |= from_dict({"colab": {"base_uri": "https://localhost:8080/"}, "outputId": f"out-{its_id}"})


@habit
def ids_repeated(notebook):
    """Cells pasted with an old tool share their id."""
    for cell in notebook.cells:
        if "id" in cell:
            cell.id = "same"


# Habits that are one and the same decision: a notebook has at most one of each group.
EXCLUSIVE = (
    {"answers_in_new_cells", "answers_without_their_mark", "first_lines_lost", "answers_below_the_stub"},
    {"metadata_stripped", "saved_by_colab"},
    {"metadata_stripped", "first_lines_lost"},
    {"stub_after_the_answer", "answers_below_the_stub"},
    {"stub_after_the_answer", "answers_without_their_mark"},
    {"course_cells_edited", "course_cells_deleted"},
)
# What takes text apart comes before what makes it harder to read; the rest as above.
ORDER = ("imports_deleted", "own_helper_cells", "course_cells_edited", "course_cells_deleted")


def applied(notebook: NotebookNode, names: set[str]) -> NotebookNode:
    """A copy with these habits, in an order in which they don't get into each other's way."""
    last = ("timed_answers", "checks_deleted", "outputs_cleared", "ids_repeated", "metadata_stripped", "saved_by_colab")
    rank = {name: number for number, name in enumerate(ORDER)} | {name: 50 + n for n, name in enumerate(last)}
    listed = list(HABITS)
    for name in sorted(names, key=lambda name: (rank.get(name, 20), listed.index(name))):
        notebook = HABITS[name](notebook)
    return notebook


def drawn(draws: random.Random) -> set[str]:
    """Some habits that go together; none for the tidy half of the notebooks."""
    names = set(draws.sample(sorted(HABITS), draws.choice([0, 0, 0, 1, 2, 4])))
    for group in EXCLUSIVE:
        together = sorted(names & group)
        names -= set(together[1:])
    return names
