"""Judging dropout: random, so not draw by draw, but by what every draw must keep to."""

import torch
from torch import Tensor

from utils.checks.compare import difference, show
from utils.checks.probes.observe import Case, Observation, Raised

SHARE = 0.12  # how far the share of dropped weights may lie from p; about five standard deviations


def judge_dropout(got: Observation, expected: Observation, case: Case) -> str | None:
    """Dropout on the attention weights, in training only. See ``probes.modules.observe_dropout``.

    The case's ``arguments`` hold ``dropout``; its inputs are one-hot, so an output row is, head by head, the
    row of weights, twice.
    """
    if isinstance(stopped := got.get("raised"), Raised):
        return f"Your code raised {show(stopped)}"
    p, num_tokens = case["arguments"]["dropout"], case["x"].shape[-2]
    for name in ("without", "eval_again"):
        if found := difference(got.get(name), expected["without"]):
            return f"In eval mode nothing is dropped. {found}"
    seen, weights = got.get("in_training"), expected["without"]
    if isinstance(seen, Raised):
        return f"In training mode your code raised {show(seen)}"
    if found := difference(seen if seen is None else torch.zeros_like(seen), torch.zeros_like(expected["in_training"])):
        return found
    if bool(seen.isnan().any()):
        return "In training mode the output holds NaN."
    if torch.allclose(seen, weights.expand_as(seen), rtol=1e-3, atol=1e-5):
        return f"With dropout={p} nothing is dropped in training."
    is_kept = seen != 0  # (calls, B, T, H * 2T)
    wanted = is_kept * weights / (1 - p)
    is_wrong = ~torch.isclose(seen, wanted, rtol=1e-3, atol=1e-5)
    if bool(is_wrong.any()):
        place = tuple(is_wrong.nonzero()[0].tolist())
        return (
            f"In training mode with dropout={p} each weight should be either 0 or 1/(1-p) = {1 / (1 - p):.2f} "
            f"times what it is without dropout; got {show(seen[place])}, expected 0 or {show(wanted[place])}."
        )
    return pattern_fault(is_kept, weights, num_tokens, p)


def pattern_fault(is_kept: Tensor, weights: Tensor, num_tokens: int, p: float) -> str | None:
    """What is wrong with which weights are dropped."""
    twice = is_kept.unflatten(-1, (-1, 2, num_tokens))  # (calls, B, T, H * 2T) -> (calls, B, T, H, 2, T)
    if not torch.equal(twice[..., 0, :], twice[..., 1, :]):
        return "The outputs are dropped, entry by entry. Drop the weights, before they meet the values."
    is_visible = (weights != 0).unflatten(-1, (-1, 2, num_tokens))[..., 0, :]  # (B, T, H, T)
    kept = twice[..., 0, :]  # (calls, B, T, H, T)
    dropped = (~kept & is_visible).sum() / (is_visible.sum() * len(kept))
    if abs(float(dropped) - p) > SHARE:
        return (
            f"With dropout={p} about {p:.0%} of the weights should be dropped in training; yours drops {dropped:.0%}."
        )
    if all(torch.equal(one, kept[0]) for one in kept[1:]):
        return "Every call drops the same weights. Draw anew each time."
    last, before = kept[:, :, -1], kept[:, :, -2]  # two queries that see the key 0: (calls, B, H, T) each
    if torch.equal(last[..., 0], before[..., 0]):
        return "A key is dropped for all queries at once: that drops values. Drop single weights."
    if kept.shape[1] > 1 and torch.equal(kept[:, 0], kept[:, 1]):
        return "Every sequence of the batch drops the same weights. Each weight should have a draw of its own."
    if kept.shape[3] > 1 and torch.equal(kept[..., 0, :], kept[..., 1, :]):
        return "Every head drops the same weights. Each weight should have a draw of its own."
    always = kept.flatten(0, 1).all(dim=0) & is_visible.any(dim=0)  # (T, H, T)
    if bool(always.any()):
        return "Some of the weights are never dropped."
    return None
