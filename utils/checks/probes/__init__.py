"""The half of every check that touches the learner's code: cases to try and what to observe.

Nothing in this package knows a right answer. It turns whatever the answer does into plain data, so that
the other half (``utils.checks``) can judge without running the learner's code. Arrows: chapter modules
here import from ``observe`` only.
"""
