"""The exercises of every chapter: reference, parts and points, misconceptions. One module per chapter."""

from utils.checks.chapters import (
    chapter01,
    chapter02,
    chapter03,
    chapter04,
    chapter05,
    chapter06,
    chapter07,
    chapter08,
)
from utils.checks.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    exercise.id: exercise
    for chapter in (chapter01, chapter02, chapter03, chapter04, chapter05, chapter06, chapter07, chapter08)
    for exercise in chapter.EXERCISES
}
