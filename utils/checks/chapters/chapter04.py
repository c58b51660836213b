"""Exercises of chapter 4, multi-head attention."""

EXERCISES = ()
