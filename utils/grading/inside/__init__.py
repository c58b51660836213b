"""What runs in the sandbox, beside the learner's code. Nothing here knows a right answer, a point or a seed.

These files are shown to the sandbox as a folder of their own; outside, ``wire`` is used by the trusted half.
"""
