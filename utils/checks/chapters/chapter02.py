"""Exercises of chapter 2, self-attention."""

EXERCISES = ()
