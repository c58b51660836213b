"""Exercises of chapter 3, causal attention."""

EXERCISES = ()
