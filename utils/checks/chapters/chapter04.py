"""Exercises of chapter 4, multi-head attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v2,
    cross_attention,
    fused_attention,
    merge_heads,
    scaled_scores,
    split_heads,
)
from utils.checks.chapters.dropout import judge_dropout
from utils.checks.chapters.parts import READY_MADE_ATTENTION, any_input, manners, values
from utils.checks.compare import difference, judge_error, judge_observation
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter04 import MISSING, PROBES, SIZES
from utils.checks.probes.observe import Case, Observation, Raised
from utils.masking import check_length

DROPOUT_HINT = "Dropout belongs on the attention weights, in training mode only: `nn.Dropout` knows the mode."


def dropout_part(points: int) -> Part:
    return Part("dropout", "Dropout on the weights, in training only", points, DROPOUT_HINT, judge_dropout, ("values",))


def length_part(points: int) -> Part:
    """A sequence that is too long must be refused."""
    return Part(
        "length_error",
        "More tokens than context_length are refused",
        points,
        "Raise a ValueError that names the number of tokens when it exceeds `context_length`.",
        judge_error,
        ("values",),
    )


# 4.1 ------------------------------------------------------------------------------------------------


class Wrapper(MultiHeadAttentionWrapper):
    """The reference in two steps, so that a mistake is one changed step."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        nn.Module.__init__(self)
        self.num_heads = num_heads
        self.heads = self.make_heads(d_in, d_out, context_length, dropout, num_heads, qkv_bias)

    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList(CausalAttention(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads))

    def join(self, outputs):
        return torch.cat(outputs, dim=-1)

    def forward(self, x):
        return self.join([head(x) for head in self.heads])


class HeadsAdded(Wrapper):
    def join(self, outputs):
        return sum(outputs)


class HeadsAveraged(Wrapper):
    def join(self, outputs):
        return torch.stack(outputs).mean(dim=0)


class HeadsStacked(Wrapper):
    def join(self, outputs):
        return torch.stack(outputs, dim=1)


class HeadsAlongTokens(Wrapper):
    def join(self, outputs):
        return torch.cat(outputs, dim=1)


class HeadsAlongBatch(Wrapper):
    def join(self, outputs):
        return torch.cat(outputs, dim=0)


class HeadsReversed(Wrapper):
    def join(self, outputs):
        return torch.cat(outputs[::-1], dim=-1)


class HeadsInterleaved(Wrapper):
    def join(self, outputs):
        return torch.stack(outputs, dim=-1).flatten(-2)


class FirstHeadOnly(Wrapper):
    def join(self, outputs):
        return torch.cat(outputs[:1] * self.num_heads, dim=-1)


class HeadsInPlainList(Wrapper):
    def make_heads(self, *arguments):
        return list(super().make_heads(*arguments))


class SameHeadRepeated(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList([CausalAttention(d_in, d_out, context_length, dropout, qkv_bias)] * num_heads)


class WidthDivided(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        d_head = max(1, d_out // num_heads)
        return super().make_heads(d_in, d_head, context_length, dropout, num_heads, qkv_bias)


class BiasForgotten(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, dropout, num_heads, False)


class DropoutForgotten(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, context_length, 0.0, num_heads, qkv_bias)


class ContextLengthForgotten(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return super().make_heads(d_in, d_out, 1024, dropout, num_heads, qkv_bias)


class HeadsWithoutMask(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        return nn.ModuleList(SelfAttention_v2(d_in, d_out, qkv_bias) for _ in range(num_heads))


class OneHeadAfterTheOther(Wrapper):
    def make_heads(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias):
        widths = [d_in] + [d_out] * (num_heads - 1)
        return nn.ModuleList(CausalAttention(width, d_out, context_length, dropout, qkv_bias) for width in widths)

    def forward(self, x):
        for head in self.heads:
            x = head(x)
        return x


EXERCISE_4_1 = Exercise(
    id="4.1",
    title="Heads side by side",
    reference=MultiHeadAttentionWrapper,
    parts=(
        values(1, "Give the input to every head and join the outputs along the features, in order."),
        any_input(1, "One head or many, with bias, short sequences, float64, any memory layout"),
        dropout_part(1),
        length_part(1),
        manners(1),
    ),
    probes=PROBES["4.1"],
    misconceptions=(
        Misconception(
            "added",
            HeadsAdded,
            "You add the heads up, and what each of them found is lost in the sum. Join them instead: "
            "`torch.cat(..., dim=-1)`.",
        ),
        Misconception(
            "averaged",
            HeadsAveraged,
            "You average the heads, which blurs what each of them found. Keep them apart, side by side: "
            "`torch.cat(..., dim=-1)`.",
        ),
        Misconception(
            "stacked",
            HeadsStacked,
            "`torch.stack` gives the heads a dimension of their own. The next layer expects one long vector per "
            "token: `torch.cat(..., dim=-1)` makes it.",
        ),
        Misconception(
            "along the tokens",
            HeadsAlongTokens,
            "You join the heads along the tokens, so the sequence gets longer. Each token's vector should get "
            "longer: `dim=-1`.",
        ),
        Misconception(
            "along the batch",
            HeadsAlongBatch,
            "You join the heads along the batch: `torch.cat` without `dim` uses dimension 0. Each token's vector "
            "should get longer: `dim=-1`.",
        ),
        Misconception(
            "reversed",
            HeadsReversed,
            "You join the heads from last to first. Head 0 comes first, then head 1, and so on.",
        ),
        Misconception(
            "interleaved",
            HeadsInterleaved,
            "You mix the heads feature by feature: the first of each head, then the second of each. Put each "
            "head's features next to each other: `torch.cat(..., dim=-1)`.",
        ),
        Misconception(
            "first head only",
            FirstHeadOnly,
            "You join the same head several times. Every head of `self.heads` has to see the input: "
            "`[head(x) for head in self.heads]`.",
        ),
        Misconception(
            "plain list",
            HeadsInPlainList,
            "PyTorch can't see modules in a plain list: an optimizer would never train them. Wrap the list in "
            "`nn.ModuleList`.",
        ),
        Misconception(
            "same head repeated",
            SameHeadRepeated,
            "`[head] * num_heads` holds the same head several times, with the same weights. Make a new one each "
            "time: `[CausalAttention(...) for _ in range(num_heads)]`.",
        ),
        Misconception(
            "width divided",
            WidthDivided,
            "You divide `d_out` among the heads. In this wrapper `d_out` is the size of each head, so the output "
            "has `num_heads * d_out` features.",
        ),
        Misconception(
            "bias forgotten",
            BiasForgotten,
            "The wrapper takes `qkv_bias` but the heads never hear of it. Pass it on to `CausalAttention`.",
        ),
        Misconception(
            "dropout forgotten",
            DropoutForgotten,
            "The wrapper takes `dropout` but the heads never hear of it: nothing is dropped in training. Pass it "
            "on to `CausalAttention`.",
        ),
        Misconception(
            "context length forgotten",
            ContextLengthForgotten,
            "Your heads accept longer sequences than `context_length`. Pass it on, so that each head gets a mask of "
            "that size and refuses what is longer.",
        ),
        Misconception(
            "heads without mask",
            HeadsWithoutMask,
            "Your heads look at later tokens. Build them from `CausalAttention`, which hides the future and brings "
            "its dropout along.",
        ),
        Misconception(
            "one after the other",
            OneHeadAfterTheOther,
            "Each of your heads reads what the one before wrote. Heads work side by side: every one gets the same `x`.",
        ),
    ),
    forbid=READY_MADE_ATTENTION,
)


# 4.2 ------------------------------------------------------------------------------------------------


def two_dimensional_output() -> int:
    """The ``d_out`` of each head with which a wrapper of two heads gives two features: they are joined.

    Example:
        >>> MultiHeadAttentionWrapper(3, two_dimensional_output(), 6, 0.0, num_heads=2)(torch.ones(1, 6, 3)).shape
        torch.Size([1, 6, 2])
    """
    return 1


def total_width():
    return 2


def width_multiplied():
    return 4


def no_width():
    return 0


def width_as_float():
    return 2 / 2


def width_as_shape():
    return (6, 2)


EXERCISE_4_2 = Exercise(
    id="4.2",
    title="Two numbers out of two heads",
    reference=two_dimensional_output,
    parts=(values(1, "The output has `num_heads * d_out` features: try it with the wrapper.", "The right `d_out`"),),
    probes=PROBES["4.2"],
    misconceptions=(
        Misconception(
            "total width",
            total_width,
            "2 is the size of the joined output. `d_out` is the size of each head, and there are two of them.",
        ),
        Misconception(
            "multiplied",
            width_multiplied,
            "You multiplied by the number of heads. The wrapper does that for you: go the other way and divide.",
        ),
        Misconception(
            "nothing",
            no_width,
            "A head of size 0 says nothing. Two heads share two numbers: how many are left for each?",
        ),
        Misconception(
            "float",
            width_as_float,
            "The number is right, but `/` made it a float, and a layer can't have 1.0 features. Return an int.",
        ),
        Misconception(
            "shape",
            width_as_shape,
            "You return the shape of the output. Asked for is one number: the `d_out` that leads to it.",
        ),
    ),
)


# 4.3 ------------------------------------------------------------------------------------------------


def head_dim_of(x: Tensor, num_heads: int) -> int:
    return x.shape[-1] // num_heads


def split_by_bare_view(x, num_heads):
    b, t, _ = x.shape
    return x.reshape(b, num_heads, t, head_dim_of(x, num_heads))


def merge_by_bare_view(x):
    b, num_heads, t, head_dim = x.shape
    return x.reshape(b, t, num_heads * head_dim)


def split_with_sizes_swapped(x, num_heads):
    b, t, _ = x.shape
    return x.reshape(b, t, head_dim_of(x, num_heads), num_heads).permute(0, 3, 1, 2)


def merge_with_sizes_swapped(x):
    return x.permute(0, 2, 3, 1).flatten(2)


def split_without_transpose(x, num_heads):
    return x.unflatten(-1, (num_heads, head_dim_of(x, num_heads)))


def split_with_num_heads_as_size(x, num_heads):
    return x.unflatten(-1, (head_dim_of(x, num_heads), num_heads)).transpose(1, 2)


def split_transposing_last_two(x, num_heads):
    return split_without_transpose(x, num_heads).transpose(2, 3)


def split_transposing_twice(x, num_heads):
    return split_heads(x, num_heads).transpose(2, 3)


def merge_transposing_last_two(x):
    return x.transpose(2, 3).flatten(1, 2).transpose(1, 2)


def merge_by_view_alone(x):
    b, num_heads, t, head_dim = x.shape
    return x.transpose(1, 2).view(b, t, num_heads * head_dim)


def split_heads_first(x, num_heads):
    return torch.stack(x.chunk(num_heads, dim=-1))


def merge_joining_tokens(x):
    return torch.cat(x.unbind(1), dim=1)


def split_all_detached(x, num_heads):
    return split_heads(x, num_heads).detach()


EXERCISE_4_3 = Exercise(
    id="4.3",
    title="Split and merge",
    reference=(split_heads, merge_heads),
    parts=(
        Part(
            "split",
            "`split_heads` on ordinary input",
            2,
            "First cut each token's channels into heads, (B, T, H, D); then bring the heads in front of the tokens.",
        ),
        Part(
            "merge",
            "`merge_heads` on ordinary input",
            1,
            "Go the same way backwards: the tokens in front again, then H and D become one dimension.",
        ),
        Part(
            "any_input",
            "There and back, one head or many, float64, any memory layout",
            1,
            "After a transpose the numbers lie in another order in memory: `view` refuses, `reshape` copes.",
            needs=("split", "merge"),
        ),
        Part("manners", "Gradients flow, inputs and random state stay untouched", 1, "", needs=("split", "merge")),
    ),
    probes=PROBES["4.3"],
    misconceptions=(
        Misconception(
            "bare view, both",
            (split_by_bare_view, merge_by_bare_view),
            "A bare `view` to (B, H, T, D) has the right shape but deals out the numbers in reading order: heads get "
            "pieces of other tokens. That going there and back works proves nothing. First `view` to (B, T, H, D), "
            "then transpose.",
        ),
        Misconception(
            "bare view",
            (split_by_bare_view, merge_heads),
            "A bare `view` to (B, H, T, D) cuts through tokens: a head gets pieces of other tokens. First `view` to "
            "(B, T, H, D), then transpose.",
        ),
        Misconception(
            "merge by a bare view",
            (split_heads, merge_by_bare_view),
            "You merge without bringing the tokens to the front again, so a token gets pieces of other tokens. "
            "Transpose back to (B, T, H, D) first.",
        ),
        Misconception(
            "H and D swapped",
            (split_with_sizes_swapped, merge_with_sizes_swapped),
            "You cut the channels into (D, H), so each head gets every H-th channel. Head h holds a block of "
            "neighbours: cut them into (H, D).",
        ),
        Misconception(
            "no transpose",
            (split_without_transpose, merge_heads),
            "You stop at (B, T, H, D). Attention needs one (T, D) table per head: transpose the heads in front of the "
            "tokens.",
        ),
        Misconception(
            "number taken for size",
            (split_with_num_heads_as_size, merge_heads),
            "You take `num_heads` for the size of a head. There are `num_heads` heads of `C // num_heads` channels.",
        ),
        Misconception(
            "last two transposed",
            (split_transposing_last_two, merge_transposing_last_two),
            "You transpose the last two dimensions of (B, T, H, D). The heads have to go in front of the tokens: "
            "`transpose(1, 2)`.",
        ),
        Misconception(
            "transposed twice",
            (split_transposing_twice, merge_heads),
            "You get (B, H, D, T), the shape that the keys need in the product of scores. Splitting ends at "
            "(B, H, T, D).",
        ),
        Misconception(
            "merge by view alone",
            (split_heads, merge_by_view_alone),
            "The transpose only changes how the numbers are read, and `view` can't join dimensions that lie apart in "
            "memory. Use `reshape`, or `contiguous()` before `view`.",
        ),
        Misconception(
            "heads before the batch",
            (split_heads_first, merge_heads),
            "You put the heads before the batch. The batch stays in front: (B, H, T, D).",
        ),
        Misconception(
            "merge joins the tokens",
            (split_heads, merge_joining_tokens),
            "You join the heads along the tokens, so the sequence gets longer. Join their channels: each token's "
            "vector is whole again.",
        ),
        Misconception(
            "detached",
            (split_all_detached, merge_heads),
            "Your `split_heads` cuts the path of the gradients. Rearrange the tensor itself, without `.detach()`, "
            "`.data` or NumPy.",
        ),
    ),
)


# 4.4 ------------------------------------------------------------------------------------------------


class Steps(MultiHeadAttention):
    """The reference, step by step, so that a mistake is one changed step."""

    def check(self, num_tokens):
        check_length(num_tokens, self.context_length)

    def split(self, x):
        return split_heads(x, self.num_heads)

    def scores(self, queries, keys):
        return scaled_scores(queries, keys)

    def hide(self, scores):
        num_tokens = scores.shape[-1]
        return scores.masked_fill(self.mask[:num_tokens, :num_tokens], float("-inf"))

    def weights(self, hidden_scores):
        return torch.softmax(hidden_scores, dim=-1)

    def drop(self, weights):
        return self.dropout(weights)

    def merge(self, contexts):
        return merge_heads(contexts)

    def join(self, merged):
        return self.out_proj(merged)

    def forward(self, x):
        self.check(x.shape[-2])
        queries, keys, values = (self.split(W(x)) for W in (self.W_query, self.W_key, self.W_value))
        weights = self.drop(self.weights(self.hide(self.scores(queries, keys))))
        return self.join(self.merge(weights @ values))


class SplitByBareView(Steps):
    def split(self, x):
        return split_by_bare_view(x, self.num_heads)


class SplitAndMergedByBareView(SplitByBareView):
    def merge(self, contexts):
        return merge_by_bare_view(contexts)


class MergedByBareView(Steps):
    def merge(self, contexts):
        return merge_by_bare_view(contexts)


class ScaledByWholeWidth(Steps):
    def scores(self, queries, keys):
        return queries @ keys.transpose(-2, -1) / self.d_out**0.5


class NotScaled(Steps):
    def scores(self, queries, keys):
        return queries @ keys.transpose(-2, -1)


class ScaledWithoutRoot(Steps):
    def scores(self, queries, keys):
        return queries @ keys.transpose(-2, -1) / self.head_dim


class OutProjUnused(Steps):
    def join(self, merged):
        return merged


class OutProjMissing(OutProjUnused):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        del self.out_proj


class OutProjWithoutBias(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.out_proj = nn.Linear(self.d_out, self.d_out, bias=False)


class OutProjBiasLikeTheOthers(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out, bias=qkv_bias)


class SoftmaxOverQueries(Steps):
    def weights(self, hidden_scores):
        return torch.softmax(hidden_scores, dim=-2)


class SoftmaxOverHeads(Steps):
    def weights(self, hidden_scores):
        num_tokens = hidden_scores.shape[-1]
        weights = torch.softmax(hidden_scores, dim=1)
        return weights.masked_fill(self.mask[:num_tokens, :num_tokens], 0.0)  # of only -inf softmax makes NaN


class SoftmaxOverHeadsWithNaN(Steps):
    def weights(self, hidden_scores):
        return torch.softmax(hidden_scores, dim=1)


class MaskNotCut(Steps):
    def hide(self, scores):
        return scores.masked_fill(self.mask, float("-inf"))


class MaskAlongHeads(Steps):
    def hide(self, scores):
        hidden = self.mask[: self.num_heads, : scores.shape[-1]]  # (H, T)
        return scores.masked_fill(hidden.unsqueeze(1), float("-inf"))


class NoMask(Steps):
    def hide(self, scores):
        return scores


class HidesTheDiagonal(Steps):
    def hide(self, scores):
        num_tokens = scores.shape[-1]
        hidden = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(0)
        return scores.masked_fill(hidden, float("-inf"))


class HidesThePast(Steps):
    def hide(self, scores):
        num_tokens = scores.shape[-1]
        return scores.masked_fill(self.mask[:num_tokens, :num_tokens].T, float("-inf"))


class ZerosForScores(Steps):
    def hide(self, scores):
        num_tokens = scores.shape[-1]
        return scores.masked_fill(self.mask[:num_tokens, :num_tokens], 0.0)


class ZerosAfterSoftmax(Steps):
    def hide(self, scores):
        return scores

    def weights(self, hidden_scores):
        num_tokens = hidden_scores.shape[-1]
        return torch.softmax(hidden_scores, dim=-1).masked_fill(self.mask[:num_tokens, :num_tokens], 0.0)


class DropsInEvalToo(Steps):
    def drop(self, weights):
        return F.dropout(weights, self.dropout.p)


class DropsNothing(Steps):
    def drop(self, weights):
        return weights


class DropsTheOutput(DropsNothing):
    def join(self, merged):
        return self.dropout(super().join(merged))


class ForgetsQKVBias(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, num_heads)


class NeverChecksDivisibility(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__(d_in, d_out, context_length, dropout, 1, qkv_bias)
        self.num_heads, self.head_dim = num_heads, d_out // num_heads


class ErrorWithoutTheValue(Steps):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        if d_out % num_heads:
            raise ValueError("d_out must be divisible by num_heads")
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias)


class NeverChecksLength(Steps):
    def check(self, num_tokens):
        pass


class ForgetsDOut(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.width = self.d_out
        del self.d_out


class MaskAsPlainAttribute(Steps):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        mask = self.mask
        del self.mask
        self.mask = mask


def judge_attributes(got: Observation, expected: Observation, case: Case) -> str | None:
    """As every judge, with a sentence of its own for each size that is missing and for the mask."""
    for name in SIZES:
        if name in expected and isinstance(got.get(name), str) and got[name] == MISSING:
            return f"Your module has no attribute `{name}`."
        if name in expected and name in got and (found := difference(got[name], expected[name])):
            return f"`{name}`: {found}"
    if "mask_is_a_buffer" in got and got["mask_is_a_buffer"] is not True:
        return "Your module has no buffer called `mask`."
    return judge_observation(got, expected, case)


EXERCISE_4_4 = Exercise(
    id="4.4",
    title="Multi-head attention in one pass",
    reference=MultiHeadAttention,
    parts=(
        values(2, "Go step by step and print the shapes: (B, T, d_out), (B, H, T, D), (B, H, T, T), and back."),
        any_input(1, "One head or many, with bias, short sequences, float64, any memory layout"),
        Part(
            "attributes",
            "The layers, sizes and the mask have the agreed names",
            1,
            "Set `num_heads`, `head_dim`, `d_out` and `context_length`; `register_buffer` keeps the mask.",
            judge_attributes,
            ("values",),
        ),
        dropout_part(1),
        Part(
            "error",
            "A d_out that num_heads does not divide is refused",
            1,
            "Look at `d_out % num_heads` in `__init__` and raise a ValueError that names d_out.",
            judge_error,
            ("values",),
        ),
        length_part(1),
        manners(1),
    ),
    probes=PROBES["4.4"],
    misconceptions=(
        Misconception(
            "split by a bare view",
            SplitByBareView,
            "You split the heads by a bare `view` to (B, H, T, D): the shape is right, but heads get pieces of other "
            "tokens. First `view` to (B, T, H, D), then `transpose(1, 2)`.",
        ),
        Misconception(
            "bare views there and back",
            SplitAndMergedByBareView,
            "You split and merge the heads by bare `view`s. They undo each other, but in between each head sees pieces "
            "of other tokens. `view` to (B, T, H, D), then `transpose(1, 2)`; on the way back transpose first.",
        ),
        Misconception(
            "merged by a bare view",
            MergedByBareView,
            "You merge the heads without transposing back, so a token gets pieces of other tokens. `transpose(1, 2)` "
            "to (B, T, H, D), then join the last two dimensions.",
        ),
        Misconception(
            "scaled by the whole width",
            ScaledByWholeWidth,
            "You divide by the root of `d_out`. Each score is a dot product of `head_dim` entries, so the root of "
            "`head_dim` keeps its variance at one.",
        ),
        Misconception(
            "not scaled",
            NotScaled,
            "The scores aren't scaled, so softmax saturates. Divide them by the root of `head_dim`.",
        ),
        Misconception(
            "scaled without root",
            ScaledWithoutRoot,
            "You divide by `head_dim` itself. The spread of a dot product grows with the root of its length: "
            "`head_dim ** 0.5`.",
        ),
        Misconception(
            "output projection unused",
            OutProjUnused,
            "You return the merged heads. `out_proj` has to mix them at the end: `self.out_proj(...)`.",
        ),
        Misconception(
            "output projection missing",
            OutProjMissing,
            "Your module has no `out_proj`, so the heads never get mixed. Add `nn.Linear(d_out, d_out)` and send the "
            "merged heads through it.",
        ),
        Misconception(
            "output projection without bias",
            OutProjWithoutBias,
            "Your `out_proj` has no bias. `qkv_bias` is about queries, keys and values; `out_proj` always has one.",
        ),
        Misconception(
            "output projection follows qkv_bias",
            OutProjBiasLikeTheOthers,
            "Your `out_proj` has a bias only when `qkv_bias` is set. That switch is about queries, keys and values; "
            "`out_proj` always has a bias.",
        ),
        Misconception(
            "softmax over the queries",
            SoftmaxOverQueries,
            "Your softmax runs over the queries, so the columns add to one. Each query divides its attention among "
            "the keys: `dim=-1`.",
        ),
        Misconception(
            "softmax over the heads, NaN",
            SoftmaxOverHeadsWithNaN,
            "Your softmax runs over the heads: with four dimensions `dim=1` means heads. Where all heads hide a key it "
            "finds only -inf, hence the NaN. The keys are `dim=-1`.",
        ),
        Misconception(
            "softmax over the heads",
            SoftmaxOverHeads,
            "Your softmax runs over the heads, so they compete with each other. Each head divides its attention among "
            "the keys: `dim=-1`.",
        ),
        Misconception(
            "mask not cut",
            MaskNotCut,
            "Your mask always has `context_length` rows and columns, but a sequence may be shorter. Cut it to the "
            "top-left corner: `self.mask[:T, :T]`.",
        ),
        Misconception(
            "mask along the heads",
            MaskAlongHeads,
            "You cut the mask by the number of heads. Scores live on (query position, key position), and every head "
            "has the same (T, T) mask: `self.mask[:T, :T]`.",
        ),
        Misconception(
            "no mask",
            NoMask,
            "Your tokens look at later tokens. Set the scores above the diagonal to -inf before the softmax.",
        ),
        Misconception(
            "hides the diagonal",
            HidesTheDiagonal,
            "You hide the diagonal, too, so a token can't see itself and the first one sees nothing. Begin one above: "
            "`torch.triu(..., diagonal=1)`.",
        ),
        Misconception(
            "hides the past",
            HidesThePast,
            "You hide the past and show the future: the mask is turned around. Hide what lies above the diagonal.",
        ),
        Misconception(
            "zeros for scores",
            ZerosForScores,
            "You set hidden scores to 0, but softmax gives a score of 0 a weight like any other. Only -inf becomes "
            "weight 0.",
        ),
        Misconception(
            "zeros after softmax",
            ZerosAfterSoftmax,
            "You hide after the softmax, so the rows no longer add to one. Set the scores to -inf before it.",
        ),
        Misconception(
            "drops in eval too",
            DropsInEvalToo,
            "Your dropout also acts in eval mode: `F.dropout` drops unless it is told `training=self.training`. "
            "`nn.Dropout` knows the mode by itself.",
        ),
        Misconception(
            "drops nothing",
            DropsNothing,
            "`dropout` has no effect in training. Send the attention weights through `nn.Dropout(dropout)` before they "
            "meet the values.",
        ),
        Misconception(
            "drops the output",
            DropsTheOutput,
            "You drop entries of the output. Here dropout belongs on the attention weights, between softmax and "
            "values.",
        ),
        Misconception(
            "qkv_bias forgotten",
            ForgetsQKVBias,
            "`qkv_bias` has no effect. Pass it on to the three projections: `nn.Linear(d_in, d_out, bias=qkv_bias)`.",
        ),
        Misconception(
            "divisibility unchecked",
            NeverChecksDivisibility,
            "A `d_out` that can't be shared out among the heads is accepted, even one that leaves heads of size 0. "
            "Raise a ValueError that names it.",
        ),
        Misconception(
            "error without the value",
            ErrorWithoutTheValue,
            "You refuse the wrong `d_out`, but the message doesn't say what it was. Put the number in: "
            '`f"... got d_out={d_out}"`.',
        ),
        Misconception(
            "length unchecked",
            NeverChecksLength,
            "A sequence longer than `context_length` ends in a puzzling error about shapes. Compare the lengths first "
            "and raise a ValueError that names them.",
        ),
        Misconception(
            "d_out forgotten",
            ForgetsDOut,
            "You forgot `self.d_out`. Whoever uses the module, `forward` first of all, needs to know its width.",
        ),
        Misconception(
            "mask as a plain attribute",
            MaskAsPlainAttribute,
            "Your `mask` is no buffer, so `model.to(device)` or `state_dict()` don't know it as one. Keep it with "
            '`self.register_buffer("mask", ...)`.',
        ),
    ),
    forbid=READY_MADE_ATTENTION,
)


# 4.5 ------------------------------------------------------------------------------------------------


def gpt2_attention() -> MultiHeadAttention:
    """Attention as in one layer of GPT-2 small: 12 heads of 64 numbers, 768 in all, up to 1024 tokens.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).

    Example:
        >>> gpt2_attention().head_dim
        64
    """
    return MultiHeadAttention(768, 768, context_length=1024, dropout=0.1, num_heads=12, qkv_bias=True)


def gpt2_heads_and_size_swapped():
    return MultiHeadAttention(768, 768, 1024, 0.0, num_heads=64)


def gpt2_head_size_as_width():
    return MultiHeadAttention(768, 64, 1024, 0.0, num_heads=1)


def gpt2_head_size_as_width_of_all():
    return MultiHeadAttention(768, 64, 1024, 0.0, num_heads=2)


def gpt2_half_context():
    return MultiHeadAttention(768, 768, 512, 0.0, num_heads=12)


def gpt2_width_as_context():
    return MultiHeadAttention(768, 768, 768, 0.0, num_heads=12)


def gpt2_medium():
    return MultiHeadAttention(1024, 1024, 1024, 0.0, num_heads=16)


def gpt2_context_and_width_swapped():
    return MultiHeadAttention(1024, 1024, 768, 0.0, num_heads=16)


def gpt2_one_head():
    return MultiHeadAttention(768, 768, 1024, 0.0, num_heads=1)


def gpt2_eight_heads():
    return MultiHeadAttention(768, 768, 1024, 0.0, num_heads=8)


def gpt2_wrapper():
    return MultiHeadAttentionWrapper(768, 64, 1024, 0.0, num_heads=12)


def gpt2_class():
    return MultiHeadAttention


EXERCISE_4_5 = Exercise(
    id="4.5",
    title="The size of GPT-2",
    reference=gpt2_attention,
    parts=(
        Part(
            "heads",
            "Heads and widths of GPT-2 small",
            1,
            "Tokens are vectors of 768 numbers, before and after; 12 heads share them.",
            judge_attributes,
        ),
        Part(
            "reach",
            "The context of GPT-2 small",
            1,
            "GPT-2 reads up to 1024 tokens.",
            judge_attributes,
            ("heads",),
        ),
    ),
    probes=PROBES["4.5"],
    misconceptions=(
        Misconception(
            "heads and size swapped",
            gpt2_heads_and_size_swapped,
            "You have 64 heads of 12 numbers. It is the other way round: 12 heads of 64.",
        ),
        Misconception(
            "size of one head",
            gpt2_head_size_as_width,
            "You built one head of 64 numbers. `d_out` is the width of all heads together: 12 times 64.",
        ),
        Misconception(
            "64 for all",
            gpt2_head_size_as_width_of_all,
            "You give `d_out` the size of one head, 64. It is the width of all 12 heads together.",
        ),
        Misconception(
            "half the context",
            gpt2_half_context,
            "512 tokens were GPT-1's context. GPT-2 reads up to 1024.",
        ),
        Misconception(
            "width as context",
            gpt2_width_as_context,
            "You took the width for the context. Vectors have 768 numbers; sequences have up to 1024 tokens.",
        ),
        Misconception(
            "medium",
            gpt2_medium,
            "1024 numbers in 16 heads: that is GPT-2 medium. The small one has 768 in 12 heads.",
        ),
        Misconception(
            "context and width swapped",
            gpt2_context_and_width_swapped,
            "You swapped width and context. Vectors have 768 numbers; sequences have up to 1024 tokens.",
        ),
        Misconception(
            "one head",
            gpt2_one_head,
            "The sizes are right, but a single head does all the work. GPT-2 small has 12 of them.",
        ),
        Misconception(
            "eight heads",
            gpt2_eight_heads,
            "Eight heads were in the first transformer. GPT-2 small has 12, of 64 numbers each.",
        ),
        Misconception(
            "wrapper",
            gpt2_wrapper,
            "This is the wrapper: one module per head and no output projection. Use `MultiHeadAttention`, where "
            "`d_out` is the width of all heads together.",
        ),
        Misconception(
            "class",
            gpt2_class,
            "You return the class itself. Call it with the sizes: `MultiHeadAttention(...)` builds the module.",
        ),
    ),
)


# 4.6 ------------------------------------------------------------------------------------------------


def queries_keys_values(mha, x):
    return (split_heads(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value))


def corner_of_mask(mha, x):
    return mha.mask[: x.shape[-2], : x.shape[-2]]


def fused_without_mask(mha, x):
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x))
    return mha.out_proj(merge_heads(contexts))


def fused_with_mask_inverted(mha, x):
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), attn_mask=corner_of_mask(mha, x))
    return mha.out_proj(merge_heads(contexts))


def fused_with_mask_as_numbers(mha, x):
    added = corner_of_mask(mha, x).to(x.dtype)
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), attn_mask=added)
    return mha.out_proj(merge_heads(contexts))


def fused_with_mask_not_cut(mha, x):
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), attn_mask=~mha.mask)
    return mha.out_proj(merge_heads(contexts))


def fused_as_one_head(mha, x):
    contexts = F.scaled_dot_product_attention(mha.W_query(x), mha.W_key(x), mha.W_value(x), is_causal=True)
    return mha.out_proj(contexts)


def fused_scaled_by_width(mha, x):
    scale = mha.d_out**-0.5
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), is_causal=True, scale=scale)
    return mha.out_proj(merge_heads(contexts))


def fused_scaled_twice(mha, x):
    queries, keys, values = queries_keys_values(mha, x)
    contexts = F.scaled_dot_product_attention(queries / mha.head_dim**0.5, keys, values, is_causal=True)
    return mha.out_proj(merge_heads(contexts))


def fused_split_by_bare_view(mha, x):
    split = [split_by_bare_view(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value)]
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(*split, is_causal=True)))


def fused_with_bare_views(mha, x):
    split = [split_by_bare_view(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value)]
    return mha.out_proj(merge_by_bare_view(F.scaled_dot_product_attention(*split, is_causal=True)))


def fused_over_heads(mha, x):
    split = [split_without_transpose(W(x), mha.num_heads) for W in (mha.W_query, mha.W_key, mha.W_value)]
    return mha.out_proj(F.scaled_dot_product_attention(*split, is_causal=True).flatten(-2))


def fused_merged_by_bare_view(mha, x):
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), is_causal=True)
    return mha.out_proj(merge_by_bare_view(contexts))


def fused_without_out_proj(mha, x):
    return merge_heads(F.scaled_dot_product_attention(*queries_keys_values(mha, x), is_causal=True))


def fused_keys_and_values_swapped(mha, x):
    queries, keys, values = queries_keys_values(mha, x)
    return mha.out_proj(merge_heads(F.scaled_dot_product_attention(queries, values, keys, is_causal=True)))


def fused_with_dropout(mha, x):
    contexts = F.scaled_dot_product_attention(*queries_keys_values(mha, x), dropout_p=mha.dropout.p, is_causal=True)
    return mha.out_proj(merge_heads(contexts))


def calls_the_module(mha, x):
    return mha(x)


def written_out(mha, x):
    queries, keys, values = queries_keys_values(mha, x)
    scores = scaled_scores(queries, keys).masked_fill(corner_of_mask(mha, x), float("-inf"))
    return mha.out_proj(merge_heads(torch.softmax(scores, dim=-1) @ values))


def fused_without_gradient(mha, x):
    with torch.no_grad():
        return fused_attention(mha, x)


def judge_fused(got: Observation, expected: Observation, case: Case) -> str | None:
    """As every judge; besides, the module itself must not be called, and the numbers must come from the kernel."""
    if got.get("mha_was_called"):
        return "Your answer calls `mha` itself, which is what it should do without."
    name = "with_a_silent_kernel"
    if found := judge_observation(got, {key: value for key, value in expected.items() if key != name}, case):
        return found
    if name in expected:
        silenced = got[name]  # (B, T, d_out): without the kernel nothing tells one token from another
        if isinstance(silenced, Raised) or difference(silenced, silenced[:1, :1].expand_as(silenced)):
            return "The numbers are right, but they don't come from `F.scaled_dot_product_attention`."
    return None


EXERCISE_4_6 = Exercise(
    id="4.6",
    title="The fused kernel",
    reference=fused_attention,
    parts=(
        Part(
            "values",
            "Right numbers, by the fused kernel",
            2,
            "Project, split into heads, call `F.scaled_dot_product_attention`, merge, and project once more.",
            judge_fused,
        ),
        Part(
            "any_input",
            "One head or many, with bias, short sequences, float64, any memory layout",
            1,
            "The earlier numbers are right, so look at what is special here: sizes, dtype or memory layout.",
            judge_fused,
            ("values",),
        ),
        Part(
            "manners",
            "Gradients flow, the module, inputs and random state stay untouched",
            1,
            "",
            judge_fused,
            ("values",),
        ),
    ),
    probes=PROBES["4.6"],
    misconceptions=(
        Misconception(
            "no mask",
            fused_without_mask,
            "Your tokens look at later tokens: the kernel hides nothing unless it is told. Pass `is_causal=True`.",
        ),
        Misconception(
            "mask inverted",
            fused_with_mask_inverted,
            "You pass `mha.mask` as it is. There True means hidden; to the kernel it means 'may be seen'. Turn it "
            "around with `~`, or use `is_causal=True`.",
        ),
        Misconception(
            "mask as numbers",
            fused_with_mask_as_numbers,
            "A floating mask is added to the scores, and yours adds 1 to what should be hidden. Add -inf there, or "
            "use `is_causal=True`.",
        ),
        Misconception(
            "mask not cut",
            fused_with_mask_not_cut,
            "Your mask always has `context_length` rows and columns, but a sequence may be shorter. Cut it to "
            "`[:T, :T]`, or use `is_causal=True`.",
        ),
        Misconception(
            "one head",
            fused_as_one_head,
            "You give the kernel the whole width, as if there were one head. Split queries, keys and values into "
            "`mha.num_heads` heads first.",
        ),
        Misconception(
            "scaled by the whole width",
            fused_scaled_by_width,
            "You scale by the root of `d_out`. The kernel's own default, the root of the head size, is the right one: "
            "leave `scale` out.",
        ),
        Misconception(
            "scaled twice",
            fused_scaled_twice,
            "You scale the queries, and the kernel scales the scores once more. Leave the scaling to the kernel.",
        ),
        Misconception(
            "split by a bare view",
            fused_split_by_bare_view,
            "You split the heads by a bare `view` to (B, H, T, D), so heads get pieces of other tokens. First (B, T, "
            "H, D), then transpose.",
        ),
        Misconception(
            "bare views there and back",
            fused_with_bare_views,
            "You split and merge the heads by bare `view`s. They undo each other, but the kernel sees heads made of "
            "pieces of other tokens. (B, T, H, D) first, then transpose, and the same way back.",
        ),
        Misconception(
            "attention over the heads",
            fused_over_heads,
            "You pass (B, T, H, D), and the kernel takes the heads for the sequence. Transpose to (B, H, T, D) first, "
            "and back afterwards.",
        ),
        Misconception(
            "merged by a bare view",
            fused_merged_by_bare_view,
            "You merge the heads without transposing back, so a token gets pieces of other tokens. Transpose to "
            "(B, T, H, D) first.",
        ),
        Misconception(
            "no output projection",
            fused_without_out_proj,
            "You stop at the merged heads. `mha(x)` sends them through `mha.out_proj` at the end.",
        ),
        Misconception(
            "keys and values swapped",
            fused_keys_and_values_swapped,
            "You pass the values in the place of the keys. The order is queries, keys, values.",
        ),
        Misconception(
            "dropout",
            fused_with_dropout,
            "You pass `dropout_p`, and the kernel drops whenever it is above 0: it knows no eval mode. Leave it at "
            "0.0 here.",
        ),
        Misconception(
            "calls the module",
            calls_the_module,
            "You call `mha` and so get its written-out steps. Use only its layers, and "
            "`F.scaled_dot_product_attention` for what lies between them.",
        ),
        Misconception(
            "written out",
            written_out,
            "Your numbers are right, but you wrote the steps out, and the (T, T) table of weights is stored after all. "
            "Let `F.scaled_dot_product_attention` do scores, mask, softmax and weighted sum at once.",
        ),
        Misconception(
            "no gradient",
            fused_without_gradient,
            "The numbers are right, but no gradient flows back. Eval mode is no `torch.no_grad()`: leave that to "
            "whoever calls you.",
        ),
    ),
)


# 4.7 ------------------------------------------------------------------------------------------------


def cross_by(x, context, W_query, W_key, W_value, scale=None, dim=-1, hidden=None):
    """The reference with its steps open to mistakes."""
    scores = (x @ W_query) @ (context @ W_key).transpose(-2, -1)  # (B, Tq, Tk)
    scores = scores / (W_key.shape[-1] ** 0.5 if scale is None else scale)
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.softmax(scores, dim=dim) @ (context @ W_value)


def cross_roles_swapped(x, context, W_query, W_key, W_value):
    return cross_attention(context, x, W_query, W_key, W_value)


def cross_values_from_x(x, context, W_query, W_key, W_value):
    return torch.softmax(scaled_scores(x @ W_query, context @ W_key), dim=-1) @ (x @ W_value)


def cross_keys_from_x(x, context, W_query, W_key, W_value):
    return torch.softmax(scaled_scores(x @ W_query, x @ W_key), dim=-1) @ (context @ W_value)


def cross_self_attention(x, context, W_query, W_key, W_value):
    return cross_attention(x, x, W_query, W_key, W_value)


def cross_context_only(x, context, W_query, W_key, W_value):
    return cross_attention(context, context, W_query, W_key, W_value)


def cross_with_mask(x, context, W_query, W_key, W_value):
    hidden = torch.ones(x.shape[-2], context.shape[-2], dtype=torch.bool).triu(1)
    return cross_by(x, context, W_query, W_key, W_value, hidden=hidden)


def cross_not_scaled(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=1)


def cross_scaled_by_input(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=x.shape[-1] ** 0.5)


def cross_scaled_by_context(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=context.shape[-1] ** 0.5)


def cross_scaled_by_length(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=context.shape[-2] ** 0.5)


def cross_scaled_without_root(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, scale=W_key.shape[-1])


def cross_softmax_over_queries(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, dim=-2)


def cross_softmax_over_batch(x, context, W_query, W_key, W_value):
    return cross_by(x, context, W_query, W_key, W_value, dim=0)


def cross_weights_transposed(x, context, W_query, W_key, W_value):
    return cross_attention(x, context, W_query.T, W_key.T, W_value.T)


def cross_values_not_projected(x, context, W_query, W_key, W_value):
    return torch.softmax(scaled_scores(x @ W_query, context @ W_key), dim=-1) @ context


def cross_no_softmax(x, context, W_query, W_key, W_value):
    return scaled_scores(x @ W_query, context @ W_key) @ (context @ W_value)


EXERCISE_4_7 = Exercise(
    id="4.7",
    title="Cross-attention",
    reference=cross_attention,
    parts=(
        values(2, "Queries come from `x`; keys and values come from `context`. The rest is as before, without a mask."),
        any_input(1, "Sequences of any two lengths and widths, float64, any memory layout"),
        manners(1),
    ),
    probes=PROBES["4.7"],
    misconceptions=(
        Misconception(
            "roles swapped",
            cross_roles_swapped,
            "Your queries come from the context. `x` asks and the context answers: queries from `x`, keys and values "
            "from `context`.",
        ),
        Misconception(
            "values from x",
            cross_values_from_x,
            "Your values come from `x`. What is read is the context: keys and values both come from it.",
        ),
        Misconception(
            "keys from x",
            cross_keys_from_x,
            "Your keys come from `x`. Each key belongs to the value next to it: both come from `context`.",
        ),
        Misconception(
            "self-attention",
            cross_self_attention,
            "You never look at `context`: this is self-attention. Keys and values come from `context`.",
        ),
        Misconception(
            "context only",
            cross_context_only,
            "You never look at `x`: the context attends to itself. Queries come from `x`, one output for each of its "
            "tokens.",
        ),
        Misconception(
            "causal mask",
            cross_with_mask,
            "You hide later positions. The whole context is known beforehand, and its positions are not those of "
            "`x`: no mask here.",
        ),
        Misconception(
            "not scaled",
            cross_not_scaled,
            "The scores aren't scaled. Divide them by the root of the keys' size.",
        ),
        Misconception(
            "scaled by the input",
            cross_scaled_by_input,
            "You scale by the size of the inputs `x`. The dot products run over the projected vectors: their size "
            "is that of the queries and keys.",
        ),
        Misconception(
            "scaled by the context",
            cross_scaled_by_context,
            "You scale by the size of the vectors in `context`. The dot products run over the projected vectors: take "
            "the last dimension of the keys.",
        ),
        Misconception(
            "scaled by the length",
            cross_scaled_by_length,
            "You scale by the number of tokens. The dot products run over the features: take the last dimension of "
            "the keys.",
        ),
        Misconception(
            "scaled without root",
            cross_scaled_without_root,
            "You divide by the size of the keys. It is its square root that keeps the variance at one.",
        ),
        Misconception(
            "softmax over the queries",
            cross_softmax_over_queries,
            "Your softmax runs over the queries. Each query divides its attention among the keys of the context: "
            "`dim=-1`.",
        ),
        Misconception(
            "softmax over the batch",
            cross_softmax_over_batch,
            "Your softmax runs over the batch, so sequences compete with each other. The keys are the last dimension "
            "of the scores: `dim=-1`.",
        ),
        Misconception(
            "weights transposed",
            cross_weights_transposed,
            "You transpose the weights. They are (inputs, outputs) here, as in version 1: `x @ W_query`.",
        ),
        Misconception(
            "values not projected",
            cross_values_not_projected,
            "You sum up the context itself. The values are `context @ W_value`.",
        ),
        Misconception(
            "no softmax",
            cross_no_softmax,
            "You use the scores as weights. Softmax over the keys turns them into shares that add to one.",
        ),
    ),
    forbid=READY_MADE_ATTENTION,
)


EXERCISES = (EXERCISE_4_1, EXERCISE_4_2, EXERCISE_4_3, EXERCISE_4_4, EXERCISE_4_5, EXERCISE_4_6, EXERCISE_4_7)
