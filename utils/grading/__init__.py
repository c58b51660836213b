"""Marking a class: notebooks in, marks, feedback and a picture of the class out.

    python -m utils.grading SUBMISSIONS --out GRADES

The guide for instructors is ``README.md`` beside this file. The learners' code runs in a sandbox and hands back
data only; right answers, expected values and points stay outside, in this process.
"""
