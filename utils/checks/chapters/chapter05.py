"""Exercises of chapter 5, the bigram language model."""

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.bigram import BigramLanguageModel, bigram_log_probs
from utils.checks.chapters.parts import any_input, manners, values
from utils.checks.compare import judge_error, judge_observation, show
from utils.checks.exercise import Exercise, Misconception, Part
from utils.checks.probes.chapter05 import LARGE_BATCH, PROBES, SMALL_BATCHES, Storyteller
from utils.checks.probes.observe import Case, Observation, Raised
from utils.generation import generate
from utils.tokenizers import CharTokenizer, characters_per_token
from utils.training import get_batch

# 5.1 ------------------------------------------------------------------------------------------------


class OrderOfAppearance(CharTokenizer):
    def __init__(self, text: str):
        super().__init__(text)
        self.vocab = tuple(dict.fromkeys(text))
        self._ids = {character: i for i, character in enumerate(self.vocab)}


class UnicodeNumbers:
    def __init__(self, text: str):
        self.vocab_size = len(set(text))

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids) -> str:
        return "".join(chr(i) for i in ids)


class CountsTheText(CharTokenizer):
    def __init__(self, text: str):
        super().__init__(text)
        self.vocab_size = len(text)


class StartsAtOne:
    def __init__(self, text: str):
        self.vocab = sorted(set(text))
        self.vocab_size = len(self.vocab)

    def encode(self, text: str) -> list[int]:
        return [self.vocab.index(character) + 1 for character in text]

    def decode(self, ids) -> str:
        return "".join(self.vocab[i - 1] for i in ids)


class DecodesToList(CharTokenizer):
    def decode(self, ids):
        return list(super().decode(ids))


class EncodesToTensor(CharTokenizer):
    def encode(self, text: str):
        return torch.tensor(super().encode(text))


class ListsOnly(CharTokenizer):
    def decode(self, ids) -> str:
        by_id = dict(enumerate(self.vocab))
        return "".join(by_id[i] for i in ids)


class PlainLookup(CharTokenizer):
    def encode(self, text: str) -> list[int]:
        return [self._ids[character] for character in text]


class SkipsStrangers(CharTokenizer):
    def encode(self, text: str) -> list[int]:
        return [self._ids[character] for character in text if character in self._ids]


class UsesZeroForStrangers(CharTokenizer):
    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, 0) for character in text]


class NamelessError(CharTokenizer):
    def encode(self, text: str) -> list[int]:
        if any(character not in self._ids for character in text):
            raise ValueError("unknown character")
        return super().encode(text)


class SharedVocabulary:
    vocab: tuple[str, ...] = ()

    def __init__(self, text: str):
        type(self).vocab = tuple(sorted(set(text)))
        self.vocab_size = len(self.vocab)

    def encode(self, text: str) -> list[int]:
        return [self.vocab.index(character) for character in text]

    def decode(self, ids) -> str:
        return "".join(self.vocab[i] for i in ids)


EXERCISE_5_1 = Exercise(
    id="5.1",
    title="A character tokenizer",
    reference=CharTokenizer,
    parts=(
        values(2, "The vocabulary is `sorted(set(text))`; a character's id is its place in it.", "Encode and decode"),
        any_input(1, "Any characters, empty strings, tensors of ids, two tokenizers at once"),
        Part(
            "error",
            "A character that is not in the vocabulary is refused by name",
            1,
            "Raise a ValueError that contains the character.",
            judge=judge_error,
            needs=("values",),
        ),
    ),
    probes=PROBES["5.1"],
    misconceptions=(
        Misconception(
            "order of appearance",
            OrderOfAppearance,
            "Your ids follow the order in which characters first appear. Sort the distinct characters, so that the "
            "ids don't depend on how the text begins.",
        ),
        Misconception(
            "unicode numbers",
            UnicodeNumbers,
            "You use Unicode code points as ids. They leave huge gaps; a model needs ids 0 to vocab_size - 1, one "
            "per row of its table.",
        ),
        Misconception(
            "counts the text",
            CountsTheText,
            "`vocab_size` is the length of the text. Count distinct characters: `len(set(text))`.",
        ),
        Misconception(
            "starts at one",
            StartsAtOne,
            "Your ids start at 1. They are row numbers of a table, and rows start at 0.",
        ),
        Misconception(
            "decodes to a list",
            DecodesToList,
            "`decode` returns a list of characters. Join them into one text: `''.join(...)`.",
        ),
        Misconception(
            "encodes to a tensor",
            EncodesToTensor,
            "`encode` returns a tensor. Return a plain list of int; who needs a tensor can wrap it.",
        ),
        Misconception(
            "lists only",
            ListsOnly,
            "`decode` fails on a tensor: its entries are 0-d tensors, which a dictionary does not find. Turn each id "
            "into an int first.",
        ),
        Misconception(
            "plain lookup",
            PlainLookup,
            "An unknown character ends in a KeyError from your dictionary. Raise a ValueError that says which "
            "character it was.",
        ),
        Misconception(
            "skips strangers",
            SkipsStrangers,
            "Unknown characters vanish silently, and the text that comes back is another one. Raise a ValueError "
            "that names the character.",
        ),
        Misconception(
            "zero for strangers",
            UsesZeroForStrangers,
            "Unknown characters become id 0, which is another character. Raise a ValueError that names the stranger.",
        ),
        Misconception(
            "nameless error",
            NamelessError,
            "Your error does not say which character is unknown. Put it into the message: whoever reads it has "
            "a million characters to search.",
        ),
        Misconception(
            "shared vocabulary",
            SharedVocabulary,
            "A second tokenizer changes the first: the vocabulary is stored on the class. Store it on the object, "
            "with `self.` in `__init__`.",
        ),
    ),
)


# 5.2 ------------------------------------------------------------------------------------------------


def starts_from(generator: torch.Generator, count: int, batch_size: int) -> list[int]:
    return torch.randint(count, (batch_size,), generator=generator).tolist()


def chunks(data: Tensor, starts: list[int], block_size: int, shift: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.stack([data[i : i + block_size] for i in starts])
    y = torch.stack([data[i + shift : i + shift + block_size] for i in starts])
    return x, y


def batch_not_shifted(data, block_size, batch_size, generator):
    return chunks(data, starts_from(generator, len(data) - block_size, batch_size), block_size, shift=0)


def batch_shifted_back(data, block_size, batch_size, generator):
    y, x = chunks(data, starts_from(generator, len(data) - block_size, batch_size), block_size)
    return x, y


def batch_shifted_by_two(data, block_size, batch_size, generator):
    starts = starts_from(generator, max(1, len(data) - block_size - 1), batch_size)
    return chunks(data, starts, block_size, shift=2)


def batch_one_target(data, block_size, batch_size, generator):
    x, y = get_batch(data, block_size, batch_size, generator)
    return x, y[:, -1]


def batch_without_last_start(data, block_size, batch_size, generator):
    return chunks(data, starts_from(generator, len(data) - block_size - 1, batch_size), block_size)


def batch_past_the_end(data, block_size, batch_size, generator):
    return chunks(data, starts_from(generator, len(data), batch_size), block_size)


def batch_same_start(data, block_size, batch_size, generator):
    start = starts_from(generator, len(data) - block_size, 1)
    return chunks(data, start * batch_size, block_size)


def batch_neighbours(data, block_size, batch_size, generator):
    count = len(data) - block_size
    first = starts_from(generator, count, 1)[0]
    return chunks(data, [(first + i) % count for i in range(batch_size)], block_size)


def batch_blocks_only(data, block_size, batch_size, generator):
    count = (len(data) - 1) // block_size
    return chunks(data, [block_size * i for i in starts_from(generator, count, batch_size)], block_size)


def batch_scattered(data, block_size, batch_size, generator):
    positions = torch.randint(len(data) - 1, (batch_size, block_size), generator=generator)
    return data[positions], data[positions + 1]


def batch_from_global_state(data, block_size, batch_size, generator):
    starts = torch.randint(len(data) - block_size, (batch_size,)).tolist()
    return chunks(data, starts, block_size)


def batch_from_python_random(data, block_size, batch_size, generator):
    return chunks(data, [random.randrange(len(data) - block_size) for _ in range(batch_size)], block_size)


def batch_reseeded(data, block_size, batch_size, generator):
    return get_batch(data, block_size, batch_size, torch.Generator().manual_seed(generator.initial_seed()))


def judge_batch(got: Observation, expected: Observation, case: Case) -> str | None:
    """Shapes and dtype, rows without gaps, targets one token on. The data has no repeated token."""
    pair = got.get("result", got.get("raised"))
    if isinstance(pair, Raised):
        return f"Your code raised {show(pair)}"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return f"Return two tensors, x and y; got {show(pair)}."
    shape = (case["batch_size"], case["block_size"])
    for name, tensor in zip("xy", pair, strict=True):
        if not isinstance(tensor, Tensor):
            return f"{name} should be a tensor, got {show(tensor)}."
        if tuple(tensor.shape) != shape:
            return f"{name} should have shape {shape}, got {tuple(tensor.shape)}."
        if tensor.dtype != torch.int64:
            return f"{name} should be int64, got {tensor.dtype}."
    place = {token: i for i, token in enumerate(case["data"].tolist())}
    rows = [[place.get(token, -9) for token in row] for row in pair[0].tolist()]
    target_rows = [[place.get(token, -9) for token in row] for row in pair[1].tolist()]
    if any(p < 0 for row in rows + target_rows for p in row):
        return "A batch holds tokens that are not in the data."
    if any(row != list(range(row[0], row[0] + len(row))) for row in rows):
        return "A row of x should be one piece of the text, token after token; yours jumps."
    distances = {t - p for row, target in zip(rows, target_rows, strict=True) for p, t in zip(row, target, strict=True)}
    if distances != {1}:
        return {
            frozenset({0}): "y equals x: the model would only learn to copy. y is the data one token later.",
            frozenset({-1}): "y lies one token before x. The target is what comes next.",
        }.get(frozenset(distances), "y[b, t] should be the token right after x[b, t] in the data; it isn't.")
    return None


def chi_squared_limit(cells: int, sigmas: float = 5.5) -> float:
    """Above this, uniform counts over that many cells are out of the question (Wilson and Hilferty, 1931)."""
    freedom = cells - 1
    return freedom * (1 - 2 / (9 * freedom) + sigmas * (2 / (9 * freedom)) ** 0.5) ** 3


def is_uniform(outcomes: Tensor, cells: int) -> bool:
    """Whether outcomes 0 … cells - 1 are equally frequent, up to chance."""
    counts = torch.bincount(outcomes.flatten(), minlength=cells).double()
    mean = outcomes.numel() / cells
    return float(((counts - mean) ** 2 / mean).sum()) <= chi_squared_limit(cells)


def judge_starts(got: Observation, expected: Observation, case: Case) -> str | None:
    """Starts uniform over all legal ones, rows independent of each other; the data counts up from 0."""
    count = len(case["data"]) - case["block_size"]
    for name, wanted in (("small_batches", (SMALL_BATCHES, 2)), ("large_batch", (LARGE_BATCH,))):
        starts = got.get(name, got.get("raised"))
        if isinstance(starts, Raised):
            return f"Your code raised {show(starts)}"
        if not isinstance(starts, Tensor) or tuple(starts.shape) != wanted or starts.dtype != torch.int64:
            return "x has the wrong shape or dtype for this batch size."
        if int(starts.min()) < 0 or int(starts.max()) >= count:
            return (
                f"With {len(case['data'])} tokens and blocks of {case['block_size']}, a start past the last legal "
                "one was drawn."
            )
    small, large = got["small_batches"], got["large_batch"]
    drawn = set(torch.cat([small.flatten(), large]).tolist())
    if drawn == set(range(count - 1)):
        return (
            "The last legal start is never drawn. With N tokens and blocks of T there are N - T starts, "
            "0 to N - T - 1, and `torch.randint`'s upper end is exclusive already."
        )
    if bool((small[:, 0] == small[:, 1]).all()):
        return "All rows of a batch start at the same place. Draw one start per row."
    if len(drawn) < count:
        return f"Only {len(drawn)} of {count} legal starts are ever drawn."
    if not is_uniform(small, count) or not is_uniform(large, count):
        return "Some starts are drawn more often than others; all legal starts should be equally likely."
    pairs = (small[:, 0] * count + small[:, 1], large[0::2] * count + large[1::2])
    if not all(is_uniform(pair, count * count) for pair in pairs):
        return "The rows of a batch depend on each other. Draw every row's start independently."
    if not is_uniform(small[0::2, 0] * count + small[1::2, 0], count * count):
        return "One batch depends on the batch before. Draw every start afresh."
    return None


EXERCISE_5_2 = Exercise(
    id="5.2",
    title="A batch of chunks",
    reference=get_batch,
    parts=(
        Part(
            "values",
            "Chunks of the text, targets one token later",
            2,
            "Draw the starts, stack `data[i : i + block_size]` for x and the same one later for y.",
            judge=judge_batch,
        ),
        Part(
            "uniform",
            "Every legal start is equally likely, for each row by itself",
            1,
            "There are `len(data) - block_size` legal starts.",
            judge=judge_starts,
            needs=("values",),
        ),
        Part(
            "manners",
            "All randomness comes from `generator`",
            1,
            "Pass `generator=generator` to `torch.randint`, and draw from nothing else.",
            needs=("values",),
        ),
    ),
    probes=PROBES["5.2"],
    misconceptions=(
        Misconception(
            "not shifted",
            batch_not_shifted,
            "Your targets equal the inputs, so the model would only learn to copy. y starts one token later: "
            "`data[i + 1 : i + block_size + 1]`.",
        ),
        Misconception(
            "shifted back",
            batch_shifted_back,
            "Your targets are the tokens before, so the model would learn to look back. The target is the token "
            "that comes next: x and y are swapped.",
        ),
        Misconception(
            "shifted by two",
            batch_shifted_by_two,
            "Your targets skip a token. y[b, t] is the token right after x[b, t]: shift by one.",
        ),
        Misconception(
            "one target per row",
            batch_one_target,
            "You return one target per row. Every position has its own: a chunk of T tokens holds T predictions, so "
            "y is (B, T) too.",
        ),
        Misconception(
            "last start missing",
            batch_without_last_start,
            "One start is never drawn: the last. `torch.randint(high, ...)` excludes `high` already, so pass "
            "`len(data) - block_size` without another -1.",
        ),
        Misconception(
            "past the end",
            batch_past_the_end,
            "Some of your chunks run over the end of the data and come out too short to stack. The last legal start "
            "is `len(data) - block_size - 1`.",
        ),
        Misconception(
            "same start",
            batch_same_start,
            "You draw one start and use it for every row: the batch holds B copies of one chunk. Draw B starts: "
            "`torch.randint(..., (batch_size,), ...)`.",
        ),
        Misconception(
            "neighbours",
            batch_neighbours,
            "You draw the first start and let the other rows follow it. Then the rows of a batch are nearly the same "
            "text; draw every row's start by itself.",
        ),
        Misconception(
            "blocks only",
            batch_blocks_only,
            "Your chunks start only at multiples of the block size. Any position may start a chunk.",
        ),
        Misconception(
            "scattered",
            batch_scattered,
            "You draw every token by itself, so the rows are no text any more. Draw one start per row and take the "
            "block_size tokens from there.",
        ),
        Misconception(
            "global random state",
            batch_from_global_state,
            "You draw from PyTorch's global random state, so the same generator gives other batches. Pass "
            "`generator=generator` to `torch.randint`.",
        ),
        Misconception(
            "python's random",
            batch_from_python_random,
            "You draw with Python's `random`, so the generator has no say. Use `torch.randint` with "
            "`generator=generator`.",
        ),
        Misconception(
            "reseeded",
            batch_reseeded,
            "Every call gives the same batch: the generator starts over each time. Use the one you are given as it "
            "is; it remembers how far it has come.",
        ),
    ),
)


# 5.3 ------------------------------------------------------------------------------------------------


class FlattenedLogits(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return (logits, None) if targets is None else (logits.flatten(0, 1), loss)


class LogitsOnly(BigramLanguageModel):
    def forward(self, idx, targets=None):
        return super().forward(idx, targets)[0]


class SummedLoss(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return logits, None if targets is None else loss * targets.numel()


class SoftmaxInside(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, _ = super().forward(idx)
        probs = torch.softmax(logits, dim=-1)
        return logits, None if targets is None else F.cross_entropy(probs.flatten(0, 1), targets.flatten())


class ProbabilitiesOut(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return torch.softmax(logits, dim=-1), loss


class ScrambledLoss(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, _ = super().forward(idx)
        if targets is None:
            return logits, None
        scrambled = logits.transpose(1, 2).reshape(-1, logits.shape[-1])
        return logits, F.cross_entropy(scrambled, targets.flatten())


class LastPositionLoss(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, _ = super().forward(idx)
        return logits, None if targets is None else F.cross_entropy(logits[:, -1], targets[:, -1])


class ColumnTable(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits = self.token_embedding_table.weight.T[idx]
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class ShiftsAgain(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, _ = super().forward(idx)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


class AlwaysZeroLoss(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return logits, torch.zeros(()) if loss is None else loss


class DetachedLoss(BigramLanguageModel):
    def forward(self, idx, targets=None):
        logits, loss = super().forward(idx, targets)
        return logits, None if loss is None else loss.item()


class PlainParameter(nn.Module):
    def __init__(self, vocab_size: int):
        super().__init__()
        self.token_embedding_table = nn.Parameter(torch.randn(vocab_size, vocab_size))

    def forward(self, idx, targets=None):
        logits = self.token_embedding_table[idx]
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class EmbeddingAndHead(nn.Module):
    def __init__(self, vocab_size: int):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, 32)
        self.lm_head = nn.Linear(32, vocab_size)

    def forward(self, idx, targets=None):
        logits = self.lm_head(self.token_embedding_table(idx))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


EXERCISE_5_3 = Exercise(
    id="5.3",
    title="The bigram model",
    reference=BigramLanguageModel,
    parts=(
        Part(
            "table",
            "One `nn.Embedding` of V × V, named `token_embedding_table`",
            1,
            "`self.token_embedding_table = nn.Embedding(vocab_size, vocab_size)`, and call `super().__init__()` first.",
            needs=("logits",),
        ),
        Part("logits", "Logits of shape (B, T, V)", 1, "Reading the table at idx is the whole forward pass."),
        Part(
            "loss",
            "Mean cross-entropy, with its gradient",
            2,
            "`F.cross_entropy` wants (B·T, V) logits and (B·T,) targets.",
        ),
    ),
    probes=PROBES["5.3"],
    misconceptions=(
        Misconception(
            "flattened logits",
            FlattenedLogits,
            "With targets you return logits of shape (B·T, V). Flatten only what you hand to `F.cross_entropy`; "
            "the caller gets (B, T, V) either way.",
        ),
        Misconception(
            "logits only",
            LogitsOnly,
            "`forward` should always return two things: logits and loss. Without targets the loss is None.",
        ),
        Misconception(
            "summed loss",
            SummedLoss,
            "Your loss is the sum over all predictions. Take the mean, so that it does not grow with the batch.",
        ),
        Misconception(
            "softmax inside",
            SoftmaxInside,
            "You applied softmax before `F.cross_entropy`, which applies it again. Hand it the raw logits.",
        ),
        Misconception(
            "probabilities out",
            ProbabilitiesOut,
            "You return probabilities. Logits are the raw rows of the table; softmax comes later, when sampling.",
        ),
        Misconception(
            "scrambled",
            ScrambledLoss,
            "Your reshape mixes logits of different positions: shapes fit, contents don't. Flatten batch and time "
            "as they lie, (B, T, V) to (B·T, V), without moving V first.",
        ),
        Misconception(
            "last position only",
            LastPositionLoss,
            "Your loss looks at the last position only. Every position is a prediction: average over all B·T.",
        ),
        Misconception(
            "columns",
            ColumnTable,
            "You read columns of the table. Row i holds the logits for what follows token i: call the embedding "
            "with idx.",
        ),
        Misconception(
            "shifts again",
            ShiftsAgain,
            "You shift the targets, but `get_batch` has shifted them already: y[b, t] is the answer to x[b, t].",
        ),
        Misconception(
            "loss without targets",
            AlwaysZeroLoss,
            "Without targets there is no loss to speak of: return None, not a zero that could be averaged in.",
        ),
        Misconception(
            "loss as a number",
            DetachedLoss,
            "Your loss is a Python number, so `loss.backward()` can't work. Return the tensor; take `.item()` only "
            "for printing.",
        ),
        Misconception(
            "plain parameter",
            PlainParameter,
            "Your table is a bare parameter. Use `nn.Embedding(vocab_size, vocab_size)`: the parameter is then named "
            "`token_embedding_table.weight`, which other code relies on.",
        ),
        Misconception(
            "embedding and head",
            EmbeddingAndHead,
            "You have an embedding and a head after it. A bigram model is smaller: the row of the table is the logits.",
        ),
    ),
)


# 5.4 ------------------------------------------------------------------------------------------------


def sampled(model, idx, max_new_tokens, generator, context=None, choose=None) -> Tensor:
    """The reference's loop with one piece exchanged."""
    was_training = model.training
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for _ in range(max_new_tokens):
        logits, _ = model(idx if context is None else idx[:, -context:])
        next_id = choose(logits) if choose else draw(logits[:, -1], generator)
        idx = torch.cat([idx, next_id], dim=1)
    model.train(was_training)
    for module, mode in modes:
        module.training = mode
    return idx


def draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1, generator=generator)


def generate_greedily(model, idx, max_new_tokens, generator):
    return sampled(model, idx, max_new_tokens, generator, choose=lambda logits: logits[:, -1].argmax(-1, keepdim=True))


def generate_from_first(model, idx, max_new_tokens, generator):
    return sampled(model, idx, max_new_tokens, generator, choose=lambda logits: draw(logits[:, 0], generator))


def generate_from_last_token(model, idx, max_new_tokens, generator):
    return sampled(model, idx, max_new_tokens, generator, context=1)


def generate_without_generator(model, idx, max_new_tokens, generator):
    return sampled(model, idx, max_new_tokens, generator, choose=lambda logits: draw(logits[:, -1], None))


def generate_over_batch(model, idx, max_new_tokens, generator):
    def choose(logits):
        probs = torch.softmax(logits[:, -1], dim=0)
        return torch.multinomial(probs, num_samples=1, generator=generator)

    return sampled(model, idx, max_new_tokens, generator, choose=choose)


def generate_from_logits(model, idx, max_new_tokens, generator):
    def choose(logits):
        return torch.multinomial(logits[:, -1].clamp(min=0) + 1e-9, num_samples=1, generator=generator)

    return sampled(model, idx, max_new_tokens, generator, choose=choose)


def generate_from_raw_logits(model, idx, max_new_tokens, generator):
    def choose(logits):
        return torch.multinomial(logits[:, -1], num_samples=1, generator=generator)

    return sampled(model, idx, max_new_tokens, generator, choose=choose)


def generate_new_only(model, idx, max_new_tokens, generator):
    return generate(model, idx, max_new_tokens, generator)[:, idx.shape[1] :]


def generate_total_length(model, idx, max_new_tokens, generator):
    return generate(model, idx, max(0, max_new_tokens - idx.shape[1]), generator)


def generate_at_once(model, idx, max_new_tokens, generator):
    probs = torch.softmax(model(idx)[0][:, -1], dim=-1)
    if max_new_tokens == 0:
        return idx
    new = torch.multinomial(probs, num_samples=max_new_tokens, replacement=True, generator=generator)
    return torch.cat([idx, new], dim=1)


def generate_left_in_eval(model, idx, max_new_tokens, generator):
    result = generate(model, idx, max_new_tokens, generator)
    model.eval()
    return result


def generate_left_in_train(model, idx, max_new_tokens, generator):
    result = generate(model, idx, max_new_tokens, generator)
    model.train()
    return result


def generate_one_mode_for_all(model, idx, max_new_tokens, generator):
    was_training = model.training
    model.eval()
    result = generate(model, idx, max_new_tokens, generator)
    model.train(was_training)
    return result


def judge_text(got: Observation, expected: Observation, case: Case) -> str | None:
    """The prompt, then ids that were drawn from the right distribution, whatever the draws were."""
    problem = problem_with_draws(got.get("result"), got.get("draws"), case)
    if problem is None:
        return None
    fault = judge_observation(got, {"result": expected["result"]}, case)
    return " ".join(filter(None, [problem, fault])) if isinstance(got.get("result"), Tensor) else fault or problem


def problem_with_draws(text: Any, draws: Any, case: Case) -> str | None:
    """What is wrong with a text and the ``multinomial`` calls that made it."""
    idx, steps = case["idx"], case["max_new_tokens"]
    batch_size, length = idx.shape
    if not isinstance(text, Tensor) or text.dtype != torch.int64 or text.shape != (batch_size, length + steps):
        return f"The result should hold int64 ids, shape {(batch_size, length + steps)}."
    if not torch.equal(text[:, :length], idx):
        return "The result should begin with the prompt."
    if len(draws) != steps:
        return f"{steps} new tokens take {steps} calls of `multinomial`, one per step; yours made {len(draws)}."
    with torch.no_grad():
        logits, _ = Storyteller(case["tables"].double())(text)
    wanted = torch.softmax(logits[:, length - 1 : -1], dim=-1)  # (B, new, V): what each step should draw from
    for step, (weights, ids, has_generator) in enumerate(draws):
        if not has_generator:
            return "`multinomial` did not get the generator: pass `generator=generator`."
        if not torch.equal(ids.flatten(), text[:, length + step]):
            return "The ids that `multinomial` drew are not the ones in the text."
        weights = weights.double().reshape(wanted[:, step].shape)
        if not torch.allclose(weights / weights.sum(dim=-1, keepdim=True), wanted[:, step], rtol=1e-3, atol=1e-5):
            return "The probabilities you draw from are not the softmax of the last position's logits."
    return None


EXERCISE_5_4 = Exercise(
    id="5.4",
    title="Generate text",
    reference=generate,
    parts=(
        Part(
            "values",
            "The prompt, followed by sampled tokens",
            2,
            "Feed the whole sequence, take the last position's logits, softmax, one multinomial, append; repeat.",
            judge=judge_text,
        ),
        Part(
            "any_input",
            "No new token, one new token, many, near-certain choices",
            1,
            "The earlier texts are right, so look at what is special here: their length, or very large logits.",
            judge=judge_text,
            needs=("values",),
        ),
        manners(1, "The model's mode, the prompt and the random state stay as they were"),
    ),
    probes=PROBES["5.4"],
    misconceptions=(
        Misconception(
            "greedy",
            generate_greedily,
            "You always take the likeliest token. Sample: `torch.multinomial(probs, num_samples=1, "
            "generator=generator)`.",
        ),
        Misconception(
            "first position",
            generate_from_first,
            "You sample from the first position's logits. The next token is predicted by the last position: "
            "`logits[:, -1, :]`.",
        ),
        Misconception(
            "last token only",
            generate_from_last_token,
            "You feed only the last token. The bigram model does not mind, but every later model needs the whole "
            "sequence.",
        ),
        Misconception(
            "no generator",
            generate_without_generator,
            "`multinomial` draws from the global random state here. Pass `generator=generator`, so that the same "
            "seed gives the same text.",
        ),
        Misconception(
            "softmax over the batch",
            generate_over_batch,
            "Your softmax runs over the batch, so the texts compete with each other. Each row's probabilities add "
            "to one over the vocabulary: `dim=-1`.",
        ),
        Misconception(
            "clamped logits",
            generate_from_logits,
            "You sample in proportion to the logits. They are no probabilities and may be negative: softmax first.",
        ),
        Misconception(
            "raw logits",
            generate_from_raw_logits,
            "`multinomial` got the raw logits and refuses negative numbers. Turn them into probabilities first: "
            "softmax over the last dimension.",
        ),
        Misconception(
            "new tokens only",
            generate_new_only,
            "You return the new tokens only. The result is the prompt followed by them.",
        ),
        Misconception(
            "total length",
            generate_total_length,
            "You stop when the whole text has max_new_tokens tokens. It counts the new ones only.",
        ),
        Misconception(
            "all at once",
            generate_at_once,
            "You draw all tokens from one distribution. Each new token changes what comes next: append it and ask "
            "the model again.",
        ),
        Misconception(
            "left in eval mode",
            generate_left_in_eval,
            "Afterwards the model is in eval mode, whatever it was before. Training would go on without dropout; "
            "put the mode back.",
        ),
        Misconception(
            "left in training mode",
            generate_left_in_train,
            "Afterwards the model is in training mode, whatever it was before. Remember `model.training` and put "
            "it back.",
        ),
        Misconception(
            "one mode for all",
            generate_one_mode_for_all,
            "You put one mode back onto all sub-modules, but one of them was frozen in eval mode. Remember each "
            "module's own `training`, or don't touch the modes at all.",
        ),
    ),
)


# 5.5 ------------------------------------------------------------------------------------------------


def pair_counts(data: Tensor, vocab_size: int) -> Tensor:
    counts = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    ones = torch.ones(max(0, len(data) - 1), dtype=torch.float64)
    return counts.index_put_((data[:-1], data[1:]), ones, accumulate=True)


def counts_transposed(data, vocab_size):
    return bigram_log_probs(data.flip(0), vocab_size)


def counts_columns(data, vocab_size):
    smoothed = pair_counts(data, vocab_size) + 1
    return (smoothed / smoothed.sum(dim=0, keepdim=True)).log().float()


def counts_unsmoothed(data, vocab_size):
    counts = pair_counts(data, vocab_size)
    return (counts / counts.sum(dim=1, keepdim=True)).log().float()


def counts_plus_one_above_only(data, vocab_size):
    counts = pair_counts(data, vocab_size)
    return ((counts + 1) / counts.sum(dim=1, keepdim=True)).log().float()


def counts_over_everything(data, vocab_size):
    smoothed = pair_counts(data, vocab_size) + 1
    return (smoothed / smoothed.sum()).log().float()


def counts_probabilities(data, vocab_size):
    return bigram_log_probs(data, vocab_size).exp()


def counts_log2(data, vocab_size):
    return (bigram_log_probs(data, vocab_size).double() / torch.tensor(2.0).log()).float()


def counts_log10(data, vocab_size):
    return (bigram_log_probs(data, vocab_size).double() / torch.tensor(10.0).log()).float()


def counts_log_of_one_plus(data, vocab_size):
    counts = pair_counts(data, vocab_size)
    probs = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.log1p(probs).float()


def counts_without_order(data, vocab_size):
    counts = pair_counts(data, vocab_size)
    smoothed = counts + counts.T + 1
    return (smoothed / smoothed.sum(dim=1, keepdim=True)).log().float()


def counts_in_a_circle(data, vocab_size):
    return bigram_log_probs(torch.cat([data, data[:1]]), vocab_size)


def counts_single_tokens(data, vocab_size):
    counts = torch.bincount(data, minlength=vocab_size).double() + 1
    return (counts / counts.sum()).log().float().expand(vocab_size, vocab_size).contiguous()


def counts_seen_once(data, vocab_size):
    smoothed = (pair_counts(data, vocab_size) > 0).double() + 1
    return (smoothed / smoothed.sum(dim=1, keepdim=True)).log().float()


def counts_in_float64(data, vocab_size):
    return bigram_log_probs(data, vocab_size).double()


def counts_tiny_smoothing(data, vocab_size):
    smoothed = pair_counts(data, vocab_size) + 1e-6
    return (smoothed / smoothed.sum(dim=1, keepdim=True)).log().float()


EXERCISE_5_5 = Exercise(
    id="5.5",
    title="The best bigram, by counting",
    reference=bigram_log_probs,
    parts=(
        values(2, "Count pairs, add 1 to every count, divide each row by its total, take the natural log."),
        any_input(1, "Tokens that never occur, tiny and large vocabularies"),
        manners(1, "The data and the random state stay untouched"),
    ),
    probes=PROBES["5.5"],
    misconceptions=(
        Misconception(
            "transposed",
            counts_transposed,
            "Rows and columns are swapped: your row is the next token. Row i should hold what follows token i.",
        ),
        Misconception(
            "columns",
            counts_columns,
            "Your columns add to one. Given the previous token (the row), the next tokens should add to one: sum "
            "over `dim=1`.",
        ),
        Misconception(
            "unsmoothed",
            counts_unsmoothed,
            "Pairs that never occur get log 0 = -inf, and one of them in new text makes the loss infinite. Add 1 to "
            "every count first.",
        ),
        Misconception(
            "one in the numerator only",
            counts_plus_one_above_only,
            "You add 1 to the counts but not V to the total, so the probabilities of a row add to more than one.",
        ),
        Misconception(
            "over everything",
            counts_over_everything,
            "You divide by the number of all pairs: that is the probability of the pair. Asked for is the next token "
            "given the previous one: divide each row by its own total.",
        ),
        Misconception(
            "probabilities",
            counts_probabilities,
            "These are the probabilities. Their natural logarithm is asked for.",
        ),
        Misconception("log2", counts_log2, "You took the logarithm to base 2 (bits). Losses here are in nats: `log`."),
        Misconception(
            "log10", counts_log10, "You took the logarithm to base 10. Losses here are in nats: natural `log`."
        ),
        Misconception(
            "log1p",
            counts_log_of_one_plus,
            "You took log(1 + p). The one is added to the counts, before dividing, not inside the logarithm.",
        ),
        Misconception(
            "no order",
            counts_without_order,
            "You count each pair in both directions. 'th' is not 'ht': count previous to next only.",
        ),
        Misconception(
            "circle",
            counts_in_a_circle,
            "You count one pair too many: from the last token back to the first. N tokens have N - 1 pairs.",
        ),
        Misconception(
            "single tokens",
            counts_single_tokens,
            "All your rows are equal: you count single tokens, and the previous token has no say. Count pairs.",
        ),
        Misconception(
            "seen or not",
            counts_seen_once,
            "You mark whether a pair occurs, not how often: `counts[a, b] = counts[a, b] + 1` with index tensors "
            "counts repeated pairs once. Use `bincount`, or `index_put_(..., accumulate=True)`.",
        ),
        Misconception(
            "float64",
            counts_in_float64,
            "The numbers are right, in float64. Return float32, as the model's logits are.",
        ),
        Misconception(
            "tiny smoothing",
            counts_tiny_smoothing,
            "You add a tiny number to the counts, which makes unseen pairs almost impossible. The contract adds 1.",
        ),
    ),
)


# 5.6 ------------------------------------------------------------------------------------------------


def refuse_empty(text: str) -> None:
    if not text:
        raise ValueError("the text is empty")


def tokens_per_character(text, encoding):
    refuse_empty(text)
    return len(encoding.encode_ordinary(text)) / len(text)


def bytes_per_token(text, encoding):
    refuse_empty(text)
    return len(text.encode("utf-8")) / len(encoding.encode_ordinary(text))


def whole_characters_per_token(text, encoding):
    refuse_empty(text)
    return len(text) // len(encoding.encode_ordinary(text))


def characters_per_distinct_token(text, encoding):
    refuse_empty(text)
    return len(text) / len(set(encoding.encode_ordinary(text)))


def distinct_characters_per_token(text, encoding):
    refuse_empty(text)
    return len(set(text)) / len(encoding.encode_ordinary(text))


def characters_per_word(text, encoding):
    refuse_empty(text)
    return len(text) / max(1, len(text.split()))


def with_special_tokens(text, encoding):
    refuse_empty(text)
    return len(text) / len(encoding.encode(text))


def ratio_as_tensor(text, encoding):
    return torch.tensor(characters_per_token(text, encoding))


def zero_for_empty(text, encoding):
    return characters_per_token(text, encoding) if text else 0.0


def division_by_zero(text, encoding):
    return len(text) / len(encoding.encode_ordinary(text))


def judge_ratio(got: Observation, expected: Observation, case: Case) -> str | None:
    """As every judge, and not rounded: a division has no reason to be off."""
    fault = judge_observation(got, expected, case)
    if fault is None and abs(got["result"] - expected["result"]) > 1e-6 * expected["result"]:
        return "Your number is rounded. Return the ratio as it is; rounding belongs where it is printed."
    return fault


EXERCISE_5_6 = Exercise(
    id="5.6",
    title="Characters per token",
    reference=characters_per_token,
    parts=(
        Part(
            "values",
            "Right numbers on ordinary input",
            1,
            "The number of characters divided by the number of tokens.",
            judge=judge_ratio,
        ),
        any_input(1, "Accents, emoji, special tokens in the text"),
        Part(
            "error",
            "An empty text is refused",
            1,
            "Raise a ValueError when there is no text: 0/0 has no value.",
            judge=judge_error,
            needs=("values",),
        ),
    ),
    probes=PROBES["5.6"],
    misconceptions=(
        Misconception(
            "upside down",
            tokens_per_character,
            "Your ratio is upside down: these are tokens per character. Divide characters by tokens.",
        ),
        Misconception(
            "bytes",
            bytes_per_token,
            "You count bytes; é has two of them, an emoji four. `len(text)` counts characters.",
        ),
        Misconception(
            "whole division",
            whole_characters_per_token,
            "`//` cuts off the fraction. Divide with `/`.",
        ),
        Misconception(
            "distinct tokens",
            characters_per_distinct_token,
            "You count each token once. Repeated tokens count every time: `len(encoding.encode_ordinary(text))`.",
        ),
        Misconception(
            "distinct characters",
            distinct_characters_per_token,
            "You count distinct characters. Every character of the text counts: `len(text)`.",
        ),
        Misconception(
            "words",
            characters_per_word,
            "You divide by words. Tokens are what the encoding makes of the text: `encoding.encode_ordinary(text)`.",
        ),
        Misconception(
            "special tokens",
            with_special_tokens,
            "`encode` refuses texts that spell a special token such as <|endoftext|>. `encode_ordinary` treats them "
            "as text.",
        ),
        Misconception(
            "tensor",
            ratio_as_tensor,
            "You return a tensor. A plain float is asked for.",
        ),
        Misconception(
            "zero for empty",
            zero_for_empty,
            "For an empty text you return a number, and an average over it would be silently wrong. Raise a "
            "ValueError.",
        ),
        Misconception(
            "division by zero",
            division_by_zero,
            "An empty text ends in a ZeroDivisionError. Say what is wrong instead: check the text first and raise a "
            "ValueError.",
        ),
    ),
)


EXERCISES = (EXERCISE_5_1, EXERCISE_5_2, EXERCISE_5_3, EXERCISE_5_4, EXERCISE_5_5, EXERCISE_5_6)
