"""Marking gives answers what they deserve: all right ones everything, wherever the sandbox meddles with PyTorch."""

import textwrap
from itertools import zip_longest

import pytest
from answer_variants import Variant, variants
from classroom import CHAPTERS, exercises_in

from utils.checks import EXERCISES

RIGHT = {"solution", "right"}


def rounds(chapter_exercises: list[str], kinds: set[str]) -> list[dict[str, Variant]]:
    """The variants of a chapter, one of each exercise at a time, so that they share notebooks."""
    columns = [[v for v in variants(exercise) if v.kind in kinds] for exercise in chapter_exercises]
    return [{v.exercise: v for v in row if v is not None} for row in zip_longest(*columns)]


@pytest.mark.parametrize("number", range(len(CHAPTERS)), ids=lambda number: f"chapter {number + 1}")
def test_every_right_answer_earns_full_points(number, mark):
    lost = []
    for answers in rounds(list(exercises_in(CHAPTERS[number])), RIGHT):
        marked = mark(str(number + 1), {exercise: variant.source for exercise, variant in answers.items()})
        for exercise, variant in answers.items():
            if marked.points[exercise] != EXERCISES[exercise].points:
                lost.append((exercise, variant.name, marked.points[exercise], marked.said[exercise], marked.flags))
    assert not lost


HONEST_HABITS = {
    "a named tuple made inside": """
        from collections import namedtuple
        def scaled_scores(queries, keys):
            Pair = namedtuple("Pair", "q k")
            pair = Pair(queries, keys)
            return pair.q @ pair.k.mT / pair.k.shape[-1] ** 0.5
    """,
    "a dataclass made inside": """
        from dataclasses import dataclass
        def scaled_scores(queries, keys):
            @dataclass
            class Pair:
                q: object
                k: object
            pair = Pair(queries, keys)
            return pair.q @ pair.k.mT / pair.k.shape[-1] ** 0.5
    """,
    "a warning and a log line": """
        import logging, warnings
        def scaled_scores(queries, keys):
            warnings.warn("slow")
            logging.warning("shape %s", queries.shape)
            return queries @ keys.mT / keys.shape[-1] ** 0.5
    """,
    "an exception that is caught and shown": """
        import traceback
        def scaled_scores(queries, keys):
            try:
                1 / 0
            except Exception:
                try:
                    traceback.format_exc()
                except ValueError:
                    pass
            return queries @ keys.mT / keys.shape[-1] ** 0.5
    """,
    "a partial of its own function": """
        from functools import partial
        def scores(queries, keys, power):
            return queries @ keys.mT / keys.shape[-1] ** power
        scaled_scores = partial(scores, power=0.5)
    """,
    "settings of PyTorch and NumPy": """
        import numpy as np, torch
        torch.set_printoptions(precision=2)
        torch.set_default_device("cpu")
        np.set_printoptions(precision=2)
        np.float = float
        def scaled_scores(queries, keys):
            return queries @ keys.mT / keys.shape[-1] ** np.float(0.5)
    """,
    "a compiled function, uncompiled": """
        import torch
        @torch.compiler.disable
        def scaled_scores(queries, keys):
            return torch.vmap(lambda q: q)(queries) @ keys.mT / keys.shape[-1] ** 0.5
    """,
}


@pytest.mark.parametrize("habit", HONEST_HABITS)
def test_ordinary_python_costs_nothing(habit, mark):
    marked = mark("2", {"2.2": "import torch\n" + textwrap.dedent(HONEST_HABITS[habit])})
    assert marked.points["2.2"] == EXERCISES["2.2"].points, marked.said["2.2"]
    assert not [flag for flag in marked.flags if "changes" in flag]


def test_a_wrong_answer_gets_no_more_than_its_check_says_and_reads_the_same(mark):
    """The notebook's cases, not the secret ones, are what the learner reads about."""
    wrong = [v for v in variants("3.2") if v.kind == "misconception"]
    for variant in wrong:
        marked = mark("3", {"3.2": variant.source})
        sentence = next(m.sentence for m in EXERCISES["3.2"].misconceptions if m.name == variant.name)
        assert marked.points["3.2"] == variant.points
        assert sentence in marked.said["3.2"]


def test_a_killed_answer_costs_the_others_nothing(mark):
    solved = {e: next(v.source for v in variants(e) if v.kind == "solution") for e in ("3.1", "3.4")}
    killer = "import os\ndef causal_softmax(scores):\n    os._exit(1)"
    at_definition = "import os\n@(lambda f: os._exit(1))\ndef is_causal(attention, d_in, context_length):\n    pass"
    marked = mark("3", {**solved, "3.2": killer, "3.3": at_definition})
    assert [marked.points[e] for e in ("3.1", "3.2", "3.3", "3.4")] == [4, 0, 0, 3]


def test_cells_without_end_are_skipped_and_flagged(mark, monkeypatch):
    monkeypatch.setattr("utils.grading.marking.CELLS_SECONDS", 3)
    solved = {e: next(v.source for v in variants(e) if v.kind == "solution") for e in ("3.1", "3.2")}
    marked = mark("3", solved, before=["while True:\n    pass"])
    assert [marked.points[e] for e in solved] == [4, 4]
    assert any("were skipped" in flag for flag in marked.flags)
