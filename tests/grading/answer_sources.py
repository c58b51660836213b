"""Python objects of this repository as the text of an answer cell that needs nothing but PyTorch and the course.

The right and wrong answers in ``tests`` and ``utils.checks`` are objects with helpers around them. A learner hands
in text. This module cuts from their files the statements that an answer needs, in order, and joins them:

- what lives in ``tests`` or ``utils.checks`` is copied, since a learner can't import it when marked;
- what lives in the rest of ``utils`` stays an import, unless it is, or is built on, the reference of the exercise
  itself or of a later one;
- names that the chapter's notebook gives to something else get ``own_`` in front.
"""

import ast
import functools
import importlib.util
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWN_CODE = ("utils", "right_answers", "subtle_mistakes")
COPIED = ("utils.checks", "right_answers", "subtle_mistakes")


class CannotCopyError(Exception):
    """An answer that can't be made self-contained; the message says why."""


@dataclass(frozen=True)
class Thing:
    """What a name stands for: something that ``module`` defines, or the module itself where ``name`` is empty."""

    module: str
    name: str = ""

    def is_in(self, packages: tuple[str, ...]) -> bool:
        """Whether it belongs to one of these packages."""
        return any(self.module == package or self.module.startswith(f"{package}.") for package in packages)


class Source:
    """One file of this repository, statement by statement.

    Attributes:
        statements: of the top level.
        binds: which statements give a name its value, by name.
        imports: what an imported name stands for, by name.
    """

    def __init__(self, module: str):
        self.module = module
        text = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.statements = ast.parse(text).body
        self.binds: dict[str, list[int]] = {}
        self.imports: dict[str, Thing] = {}
        for number, statement in enumerate(self.statements):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.imports |= imported(statement)
                continue
            added_to = [name for name in decorated_by(statement) if name in self.binds]
            for name in [*bound_by(statement), *added_to]:
                self.binds.setdefault(name, []).append(number)

    @staticmethod
    @functools.cache
    def of(module: str) -> "Source":
        """The file of a module; read once."""
        return Source(module)

    def text(self, number: int) -> str:
        """A statement as it is written, decorators included."""
        statement = self.statements[number]
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
        return "\n".join(self.lines[first - 1 : statement.end_lineno])

    @functools.cache  # noqa: B019 (as many as there are files)
    def uses(self, number: int) -> frozenset[Thing]:
        """What a statement needs from elsewhere; from a module of ``utils`` the attributes that it uses."""
        return frozenset(things_in(self, self.statements[number], self.text(number)))

    def thing(self, name: str) -> Thing | None:
        """What a name stands for in this file; None for a builtin."""
        if name in self.imports:
            thing = self.imports[name]
            if thing.is_in(OWN_CODE) and thing.name and not is_module(thing):
                return Source.of(thing.module).thing(thing.name)  # it may only pass through there
            return Thing(f"{thing.module}.{thing.name}") if thing.is_in(OWN_CODE) and thing.name else thing
        return Thing(self.module, name) if name in self.binds else None


def imported(statement: ast.Import | ast.ImportFrom) -> dict[str, Thing]:
    """The names that an import makes, with what they stand for.

    Example:
        >>> imported(ast.parse("from torch import nn").body[0])
        {'nn': Thing(module='torch', name='nn')}
    """
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name: Thing(alias.name) for alias in statement.names}
    return {alias.asname or alias.name: Thing(statement.module or "", alias.name) for alias in statement.names}


def bound_by(statement: ast.stmt) -> list[str]:
    """The names that a statement of the top level gives a value, or whose value it changes.

    Example:
        >>> bound_by(ast.parse("a, b.c = 1, 2").body[0])
        ['a', 'b']
    """
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    names = []
    for target in filter(None, targets):
        for piece in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
            while isinstance(piece, ast.Attribute | ast.Subscript | ast.Starred):
                piece = piece.value
            names += [piece.id] if isinstance(piece, ast.Name) else []
    return names


def decorated_by(statement: ast.stmt) -> list[str]:
    """The names that a definition's decorators start with: ``@name.register`` adds to what ``name`` is.

    Example:
        >>> decorated_by(ast.parse("@f.register\\ndef _(x: int): ...").body[0])
        ['f']
    """
    names = []
    for decorator in getattr(statement, "decorator_list", []):
        while isinstance(decorator, ast.Attribute | ast.Call):
            decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
        names += [decorator.id] if isinstance(decorator, ast.Name) else []
    return names


@functools.cache
def is_module(thing: Thing) -> bool:
    """Whether ``from package import name`` imports a module of this repository."""
    return thing.is_in(OWN_CODE) and importlib.util.find_spec(thing.module).submodule_search_locations is not None


def global_names(text: str) -> set[str]:
    """The names that a statement takes from its module or the builtins.

    Example:
        >>> sorted(global_names("def f(x):\\n    y = g(x)\\n    return [y + z for z in H]"))
        ['H', 'g']
    """

    def search(table: symtable.SymbolTable) -> Iterator[str]:
        is_top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() if is_top else symbol.is_global():
                yield symbol.get_name()
        for child in table.get_children():
            yield from search(child)

    return set(search(symtable.symtable(text, "<statement>", "exec")))


def things_in(source: Source, tree: ast.AST, text: str) -> set[Thing]:
    """What a piece of code in that file uses."""
    found: set[Thing] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OWN_CODE):
            found |= {Source.of(node.module).thing(alias.name) for alias in node.names}
    for name in global_names(text):
        thing = source.thing(name)
        if thing is not None and not thing.name and thing.is_in(OWN_CODE):
            found |= {Thing(thing.module, attribute) for attribute in attributes_of(tree, name)}
        elif thing is not None:
            found.add(thing)
    return found - {None}


def attributes_of(tree: ast.AST, name: str) -> set[str]:
    """The attributes of a name that a piece of code uses."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name}


@functools.cache
def built_on(thing: Thing) -> frozenset[Thing]:
    """A thing of this repository, and all others in it that it needs."""
    found, todo = set(), [thing]
    while todo:
        thing = todo.pop()
        if thing in found or not thing.name or not thing.is_in(OWN_CODE):
            continue
        found.add(thing)
        source = Source.of(thing.module)
        for number in source.binds.get(thing.name, []):
            todo += source.uses(number)
    return frozenset(found)


class Renaming(ast.NodeTransformer):
    """New names for what a statement takes from its module, and for what it defines there.

    Args:
        names: the new name by the old one.
        attributes: the new name for ``module.attribute``.
    """

    def __init__(self, names: dict[str, str], attributes: dict[tuple[str, str], str]):
        self.names, self.attributes = names, attributes

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) in self.attributes:
            return ast.copy_location(ast.Name(self.attributes[node.value.id, node.attr], node.ctx), node)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        return ast.copy_location(ast.Global([self.names.get(name, name) for name in node.names]), node)

    def renamed(self, statement: ast.stmt) -> ast.stmt:
        """A copy of a statement of the top level."""
        for node in ast.walk(statement):
            name = node.arg if isinstance(node, ast.arg | ast.keyword) else None
            if name in self.names:
                raise CannotCopyError(f"`{name}` is a parameter as well as a name that has to change")
        copied = self.visit(ast.parse(ast.unparse(statement)).body[0])
        if isinstance(copied, ast.FunctionDef | ast.ClassDef):
            copied.name = self.names.get(copied.name, copied.name)
        return copied


@dataclass(frozen=True)
class Place:
    """Where an answer goes.

    Attributes:
        exercise: its id.
        names: what the exercise asks for.
        taken: what the chapter's notebook calls by these names; None where that is no import.
        hidden: references that an answer must not use.
    """

    exercise: str
    names: tuple[str, ...]
    taken: dict[str, Thing | None]
    hidden: frozenset[Thing]

    def must_copy(self, thing: Thing) -> bool:
        """Whether an answer in this place can't import a thing."""
        return thing.is_in(COPIED) or (thing.is_in(OWN_CODE) and bool(built_on(thing) & self.hidden))


def answer_source(module: str, expression: ast.expr, place: Place) -> str:
    """The text of an answer cell for an expression that stands in a module of this repository.

    Raises:
        CannotCopyError: with the reason.
    """
    source = Source.of(module)
    last = ast.parse(f"answer = {ast.unparse(expression)}").body[0]
    copied, kept, todo = {}, set(), list(things_in(source, last, ast.unparse(last)))
    while todo:  # everything needed, directly or not
        thing = todo.pop()
        if thing in copied or thing in kept:
            continue
        if not place.must_copy(thing):
            kept.add(thing)
            continue
        if not thing.name or thing.name not in Source.of(thing.module).binds:
            raise CannotCopyError(f"{thing.module}.{thing.name} is no single thing to copy")
        copied[thing] = Source.of(thing.module).binds[thing.name]
        for number in copied[thing]:
            todo += Source.of(thing.module).uses(number)
            todo += [Thing(thing.module, name) for name in bound_by(Source.of(thing.module).statements[number])]
    names = new_names(source, expression, place, copied, kept)
    pieces = []
    for file in files_below(module):
        of_file = Source.of(file)
        numbers = sorted({number for thing, found in copied.items() if thing.module == file for number in found})
        pieces += [statement_text(of_file, number, names) for number in numbers]
    if alias := alias_text(source, expression, place, names):
        pieces.append(alias)
    imports = import_lines(names, kept)
    return "\n".join([f"# EXERCISE {place.exercise}", *imports, *[""] * bool(imports), "\n\n\n".join(pieces)])


def parts_of(expression: ast.expr) -> list[ast.expr]:
    """The answers in an expression: the elements of a tuple, or itself."""
    return list(expression.elts) if isinstance(expression, ast.Tuple) else [expression]


def new_names(
    source: Source, expression: ast.expr, place: Place, copied: dict[Thing, list[int]], kept: set[Thing]
) -> dict[Thing, str]:
    """What everything is called in the answer cell."""
    parts = parts_of(expression)
    asked_for = {
        source.thing(part.id): name
        for part, name in zip(parts, place.names, strict=len(parts) > 1)
        if isinstance(part, ast.Name) and len(parts) == len(place.names)
    }
    names, used = {}, set(place.names)
    for thing in sorted([*copied, *kept], key=lambda t: (t in kept, t.module == source.module, t.module, t.name)):
        usual = usual_name(thing)
        if asked_for.get(thing) == usual and thing in copied:
            names[thing] = usual
            continue
        name = usual
        while name in used or place.taken.get(name, thing) != thing:
            name = f"own_{name}"
        names[thing] = name
        used.add(name)
    return names


def usual_name(thing: Thing) -> str:
    """How this repository calls it."""
    if (thing.module, thing.name) == ("torch.nn.functional", ""):
        return "F"
    if (thing.module, thing.name) == ("numpy", ""):
        return "np"
    return thing.name or thing.module


def import_lines(names: dict[Thing, str], kept: set[Thing]) -> list[str]:
    """The imports of an answer cell, sorted as usual."""
    lines = []
    for thing in kept:
        name, usual = names[thing], thing.name or thing.module
        alias = "" if name == usual else f" as {name}"
        lines.append(f"from {thing.module} import {usual}{alias}" if thing.name else f"import {usual}{alias}")
    return sorted(lines, key=lambda line: (line.split()[1].split(".")[0] == "utils", line))


def local_names(source: Source, code: ast.AST, names: dict[Thing, str]) -> Renaming | None:
    """What has to change in a piece of code of that file; None if nothing."""
    old_names = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)} | set(bound_by(code))
    old_names |= {name for node in ast.walk(code) if isinstance(node, ast.Global) for name in node.names}
    changed, attributes = {}, {}
    for name in old_names:
        thing = source.thing(name)
        if thing is not None and not thing.name and thing.is_in(OWN_CODE):
            for attribute in attributes_of(code, name):
                attributes[name, attribute] = names[Thing(thing.module, attribute)]
        elif thing in names and names[thing] != name:
            changed[name] = names[thing]
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OWN_CODE):
            raise CannotCopyError("it imports from the course inside a function")
    return Renaming(changed, attributes) if changed or attributes else None


def statement_text(source: Source, number: int, names: dict[Thing, str]) -> str:
    """A statement as it stands in the answer cell: untouched unless a name in it changes."""
    renaming = local_names(source, source.statements[number], names)
    return ast.unparse(renaming.renamed(source.statements[number])) if renaming else source.text(number)


def alias_text(source: Source, expression: ast.expr, place: Place, names: dict[Thing, str]) -> str:
    """The last line: the answer gets the name that the exercise asks for. Empty if it has it already."""
    last = ast.parse(f"answer = {ast.unparse(expression)}").body[0]
    if renaming := local_names(source, last, names):
        last = renaming.renamed(last)
    values = parts_of(last.value)
    if len(values) == len(place.names):
        pairs = [(name, ast.unparse(value)) for name, value in zip(place.names, values, strict=True)]
    else:
        pairs = [(", ".join(place.names), ast.unparse(last.value))]
    return "\n".join(f"{name} = {value}" for name, value in pairs if name != value)


@functools.cache
def files_below(module: str) -> tuple[str, ...]:
    """The files of this repository that a module needs, itself last, each after those that it needs."""
    order: list[str] = []
    for thing in Source.of(module).imports.values():
        file = f"{thing.module}.{thing.name}" if thing.name and is_module(thing) else thing.module
        if thing.is_in(OWN_CODE) and importlib.util.find_spec(file) is not None:
            order += [name for name in files_below(file) if name not in order]
    return (*order, module)
