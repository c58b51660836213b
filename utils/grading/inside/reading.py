"""Reading a notebook's code without running it: where the answers are, what they need, what they mention.

Runs in the sandbox, in a process that never runs a learner's code: a text can make a parser slow or crash it, but it
can't make it lie.

Words: a *statement* is one of a cell's own, not one inside a function. A statement *binds* the names it defines at the
top level, and *asks for* those it uses but does not define.
"""

import ast
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from utils.checks.forbidden import mentioned_in

RUNS_THE_CELL = re.compile(r"\A%%(?:time|capture|prun)\b")
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class Statement:
    """One statement of a cell."""

    tree: ast.stmt
    cell: int
    place: int
    binds: set[str] = field(default_factory=set)
    asks_for: set[str] = field(default_factory=set)


@dataclass
class Cell:
    """A code cell: its text in plain Python, its statements, and why it has none."""

    source: str
    statements: list[Statement]
    error: str = ""

    @property
    def binds(self) -> set[str]:
        """All names that the cell defines."""
        return {name for statement in self.statements for name in statement.binds}


def read_notebook(order: dict[str, Any]) -> dict[str, Any]:
    """Find the answers of a notebook and what has to run for them.

    Args:
        order: ``cells``: for each code cell ``source``, ``exercise`` (as marked, or None) and ``is_own`` (whether it
            may run at all); ``course``: the course's own statements, as ``facts_of`` gives them; ``exercises``: by id
            ``names`` (what has to be defined), ``stub`` (the fingerprint of the cell as handed out) and ``forbid``.

    Returns:
        ``exercises``: by id ``state`` ("answered", "open", "missing"), ``cell``, ``copies``, ``error``, ``used`` and
        ``needs``, the [cell, place] of every statement that the answer is made of; ``course``: the statements of the
        course that the cells need; ``cells``: the cells to run, in order, as [number, source].
    """
    cells = [
        read_cell(number, cell["source"]) if cell["is_own"] else Cell(cell["source"], [])
        for number, cell in enumerate(order["cells"])
    ]
    exercises = {
        exercise: find_answer(exercise, wanted, order["cells"], cells)
        for exercise, wanted in order["exercises"].items()
    }
    may_run = [number for number, cell in enumerate(order["cells"]) if cell["is_own"]]
    own = [statement for number in may_run for statement in cells[number].statements]
    last = last_bindings(own)
    for exercise, found in exercises.items():
        if found["state"] != "answered":
            continue
        wanted = order["exercises"][exercise]
        start = bindings_in(cells[found["cell"]], wanted["names"])
        reached = reach(start, last)
        found["needs"] = sorted([statement.cell, statement.place] for statement in reached)
        found["used"] = sorted({name for statement in reached for name in mentions(statement.tree, wanted["forbid"])})
    asked_for = {name for statement in own for name in statement.asks_for}
    return {
        "exercises": exercises,
        "course": [statement["source"] for statement in what_binds(order["course"], asked_for)],
        "cells": [[number, cells[number].source] for number in may_run if cells[number].statements],
    }


def read_cell(number: int, source: str) -> Cell:
    """A cell in plain Python; IPython's magics become calls, as IPython itself would make them."""
    try:
        tree = parsed(source)
    except Exception as first:
        try:
            source = without_magics(source)
            tree = parsed(source)
        except Exception:
            return Cell(source, [], said_of(first))
    return Cell(source, [statement_of(node, number, place) for place, node in enumerate(tree.body)])


def parsed(source: str) -> ast.Module:
    """The syntax tree; what parses but can't be compiled counts as an error, too."""
    tree = ast.parse(source)
    compile(tree, "<cell>", "exec", dont_inherit=True)
    return tree


def without_magics(source: str) -> str:
    """``%matplotlib inline`` and the like as Python; what ``%%time`` and ``%%capture`` run counts as the cell's own.

    Example:
        >>> without_magics("%%time\\ndef f(): pass")
        '# %%time\\ndef f(): pass\\n'
    """
    from IPython.core.inputtransformer2 import TransformerManager

    source = RUNS_THE_CELL.sub(r"# \g<0>", source.lstrip())
    return TransformerManager().transform_cell(source)


def said_of(error: Exception) -> str:
    """What to tell the learner about a cell that is no Python."""
    line = getattr(error, "lineno", None)
    said = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
    return (said + (f" (line {line} of the cell)" if line else ""))[:300]


def statement_of(tree: ast.stmt, cell: int, place: int) -> Statement:
    """A statement with the names it binds and asks for."""
    return Statement(tree, cell, place, set(bound(tree)), asked_for(tree))


def bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement defines or changes at the top level."""
    if isinstance(node, DEFINITIONS):
        yield node.name
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        yield from roots(node)  # `Block.forward = ...` changes what `Block` is
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Lambda | ast.comprehension):
            yield from bound(child)


def roots(node: ast.AST) -> Iterator[str]:
    """The name at the beginning of ``a.b[c].d``, if it begins with one."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def asked_for(tree: ast.stmt) -> set[str]:
    """The global names that a statement uses, inside its functions and classes too."""
    module = ast.Module([tree], [])
    tables = [symtable.symtable(ast.unparse(module), "<cell>", "exec")]
    names = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    if isinstance(tree, ast.AugAssign):  # `x += 1` needs the x before
        names |= set(roots(tree.target))
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return names


def find_answer(
    exercise: str, wanted: dict[str, Any], marked: list[dict[str, Any]], cells: list[Cell]
) -> dict[str, Any]:
    """The cell that holds an exercise's answer, and in which state it is.

    Of several marked cells the last one counts that defines what is asked for and is no longer as handed out; without
    any, the last unmarked cell that defines it.
    """
    names = set(wanted["names"])
    ours = [number for number, cell in enumerate(marked) if cell["exercise"] == exercise]
    others = [
        number
        for number, cell in enumerate(marked)
        if cell["exercise"] is None and cell["is_own"] and names <= cells[number].binds
    ]

    def is_open(number: int) -> bool:
        return fingerprint(cells[number]) == wanted["stub"] or not marked[number]["source"].strip()

    attempted = [number for number in ours if not is_open(number)]
    defining = [number for number in attempted if names <= cells[number].binds]
    chosen = (defining or others or attempted or ours or [None])[-1]
    state = "missing" if chosen is None else "open" if is_open(chosen) else "answered"
    error = "" if chosen is None else cells[chosen].error
    if state == "answered" and not error and not names <= cells[chosen].binds:
        lacking = ", ".join(f"`{name}`" for name in sorted(names - cells[chosen].binds))
        error = f"The cell defines no {lacking}."
    return {"state": state, "cell": chosen, "copies": len(ours), "error": error, "used": [], "needs": []}


def fingerprint(cell: Cell) -> str:
    """A cell's code without comments, layout and docstrings."""
    for statement in cell.statements:
        for node in ast.walk(statement.tree):
            body = getattr(node, "body", None)
            if isinstance(node, DEFINITIONS) and isinstance(body[0], ast.Expr) and len(body) > 1:
                node.body = body[1:] if isinstance(getattr(body[0], "value", None), ast.Constant) else body
    return "\n".join(ast.dump(statement.tree) for statement in cell.statements) or cell.source.strip()


def last_bindings(statements: Iterable[Statement]) -> dict[str, list[Statement]]:
    """By name, the last statement that defines it, and those after it that change it."""
    found: dict[str, list[Statement]] = {}
    for statement in statements:
        for name in changed_by_a_method(statement.tree):
            if name in found and not isinstance(found[name][0].tree, ast.Import | ast.ImportFrom):
                found[name].append(statement)
        for name in statement.binds:
            is_change = not isinstance(statement.tree, DEFINITIONS) and name in statement.asks_for
            found[name] = [*found.get(name, []), statement] if is_change else [statement]
    return found


def changed_by_a_method(tree: ast.stmt) -> Iterator[str]:
    """The name that ``TABLE.append(...)`` changes; of an imported one, ``torch.manual_seed(...)``, that isn't true."""
    if isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Call) and isinstance(tree.value.func, ast.Attribute):
        yield from roots(tree.value.func)


def bindings_in(cell: Cell, names: Iterable[str]) -> list[Statement]:
    """The statements of the answer's own cell that make up the answer."""
    by_name = last_bindings(cell.statements)
    return [statement for name in names for statement in by_name.get(name, [])]


def reach(start: list[Statement], last: dict[str, list[Statement]]) -> list[Statement]:
    """These statements and all that they need, directly or not."""
    reached, waiting = [], list(start)
    while waiting:
        statement = waiting.pop()
        if not any(statement is other for other in reached):
            reached.append(statement)
            waiting += [other for name in statement.asks_for for other in last.get(name, [])]
    return reached


def facts_of(cells: Iterable[str]) -> list[dict[str, Any]]:
    """The statements of the course's own cells: ``source``, and the names each ``binds`` and ``asks_for``.

    Example:
        >>> facts_of(["x = y + 1"])
        [{'source': 'x = y + 1', 'binds': ['x'], 'asks_for': ['y']}]
    """
    statements = [statement for cell in cells for statement in read_cell(0, cell).statements]
    return [
        {"source": ast.unparse(s.tree), "binds": sorted(s.binds), "asks_for": sorted(s.asks_for)} for s in statements
    ]


def what_binds(statements: list[dict[str, Any]], names: set[str]) -> list[dict[str, Any]]:
    """Those of the course's statements that define these names, and what they need themselves, in order."""
    wanted, known = set(names), set[str]()
    while wanted - known:
        known |= wanted
        wanted |= {name for s in statements if known & set(s["binds"]) for name in s["asks_for"]}
    return [statement for statement in statements if known & set(statement["binds"])]


def mentions(tree: ast.stmt, names: Iterable[str]) -> set[str]:
    """Forbidden names that a statement mentions where they can be called later.

    What a statement computes at once and keeps as a constant is not the answer's work; what it defines is.
    """
    names = set(names)
    if isinstance(tree, DEFINITIONS):
        return mentioned_in(tree, names)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, SCOPES):
            found |= mentioned_in(node, names)
        elif isinstance(node, ast.Attribute) and id(node) not in called:
            found |= mentioned_in(ast.Expr(ast.Attribute(node.value, node.attr, ast.Load())), names - {"loop"})
        elif isinstance(node, ast.ImportFrom):
            found |= mentioned_in(node, names)
    return found
