"""Batches, evaluation and the training loop."""

from __future__ import annotations

import copy
import io
import math
import re
import sys
from itertools import cycle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from utils.bigram import BigramLanguageModel
from utils.data import load_tinyshakespeare, train_val_split
from utils.modes import evaluating
from utils.tokenizers import CharTokenizer
from utils.training import estimate_loss, get_batch, train


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Batches


def test_batch_of_the_lecture():
    text = load_tinyshakespeare()
    corpus, _ = train_val_split(torch.tensor(CharTokenizer(text).encode(text)))
    x, y = get_batch(corpus, 8, 4, generator(1337))
    assert x[0].tolist() == [24, 43, 58, 5, 57, 1, 46, 43]
    assert y[0].tolist() == [43, 58, 5, 57, 1, 46, 43, 39]
    # The lecture draws the same starts from the global generator.
    torch.manual_seed(1337)
    starts = torch.randint(len(corpus) - 8, (4,)).tolist()
    assert torch.equal(x, torch.stack([corpus[start : start + 8] for start in starts]))


@settings(deadline=None)
@given(data=st.data(), block_size=st.integers(1, 9), batch_size=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_rows_are_chunks_and_targets_the_same_one_token_later(data, block_size, batch_size, seed):
    length = data.draw(st.integers(block_size + 1, block_size + 12), label="tokens in the corpus")
    corpus = 100 + torch.arange(length)  # a token tells its place
    x, y = get_batch(corpus, block_size, batch_size, generator(seed))
    assert (x.shape, x.dtype) == (y.shape, y.dtype) == ((batch_size, block_size), torch.int64)
    assert torch.equal(x, x[:, :1] + torch.arange(block_size))
    assert torch.equal(y, x + 1)
    assert x.min() >= 100 and y.max() < 100 + length


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_ids_come_out_as_int64(dtype):
    x, y = get_batch(torch.arange(20).to(dtype), 4, 2, generator())
    assert x.dtype == y.dtype == torch.int64


def test_every_legal_start_is_equally_likely_and_the_last_is_legal():
    block_size, num_starts, draws = 5, 15, 15_000
    x, y = get_batch(torch.arange(block_size + num_starts), block_size, draws, generator())
    counts = torch.bincount(x[:, 0], minlength=num_starts).double()
    assert len(counts) == num_starts and counts.min() > 0
    assert y.max() == block_size + num_starts - 1, "the last token is never a target"
    expected = draws / num_starts
    assert ((counts - expected) ** 2 / expected).sum() < 42.6  # 14 degrees of freedom: once in 10,000 seeds


def test_rows_of_one_batch_are_drawn_independently():
    source, pairs = generator(), torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(900):
        x, _ = get_batch(torch.arange(5), 2, 2, source)
        pairs[x[0, 0], x[1, 0]] += 1
    assert ((pairs - 100) ** 2 / 100).sum() < 31.8  # 8 degrees of freedom: once in 10,000 seeds


def test_only_the_given_generator_decides():
    before = torch.get_rng_state()
    x, _ = get_batch(torch.arange(1000), 4, 8, generator(1))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert torch.equal(get_batch(torch.arange(1000), 4, 8, generator(1))[0], x)
    source = generator(1)
    batches = [get_batch(torch.arange(1000), 4, 8, source)[0] for _ in range(2)]
    assert torch.equal(batches[0], x) and not torch.equal(batches[1], x)


def test_shortest_corpus_holds_one_block_and_its_last_target():
    x, y = get_batch(torch.arange(9), 8, 3, generator())
    assert x.tolist() == [list(range(8))] * 3
    assert y.tolist() == [list(range(1, 9))] * 3


@pytest.mark.parametrize("length", [8, 3, 0])
def test_too_short_corpus_is_refused_with_both_lengths(length):
    with pytest.raises(ValueError, match=rf"needs 9 tokens, the corpus has {length}$"):
        get_batch(torch.arange(length), 8, 4, generator())


@pytest.mark.parametrize(("block_size", "batch_size"), [(0, 4), (-1, 4), (8, 0), (8, -2)])
def test_sizes_below_one_are_refused_by_number(block_size, batch_size):
    with pytest.raises(ValueError, match=f"block_size={block_size}, batch_size={batch_size}$"):
        get_batch(torch.arange(100), block_size, batch_size, generator())


# Modes

KINDS = ("train", "eval", "mixed")


def network(kind: str) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)))
    model.train(kind == "train")
    if kind == "mixed":
        model[1][0].train()  # the model itself is in eval mode
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_gives_every_module_its_own_mode_back(kind):
    model = network(kind)
    before = modes(model)
    with evaluating(model):
        assert not any(modes(model))
    assert modes(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_gives_the_modes_back_after_an_error(kind):
    model = network(kind)
    before = modes(model)
    with pytest.raises(KeyboardInterrupt), evaluating(model):
        raise KeyboardInterrupt
    assert modes(model) == before


# Evaluation


class MeanOfTargets(nn.Module):
    """Its loss is the mean of the targets; notes whether it trains and whether gradients are tracked."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.seen |= {(module.training, torch.is_grad_enabled()) for module in self.modules()}
        return x, y.double().mean() * self.scale


def batch(rows: int, tokens: int, target: int) -> tuple[Tensor, Tensor]:
    y = torch.full((rows, tokens), target)
    return torch.zeros_like(y), y


def test_loss_is_weighted_by_tokens():
    batches = [batch(4, 5, target=10), batch(1, 2, target=20), batch(2, 1, target=40)]
    loss = estimate_loss(MeanOfTargets(), batches)
    assert type(loss) is float
    assert loss == pytest.approx((20 * 10 + 2 * 20 + 2 * 40) / 24)


def test_ragged_batches_give_the_loss_of_all_tokens_at_once():
    torch.manual_seed(0)
    model, ids = BigramLanguageModel(7), torch.randint(7, (10, 5), generator=generator())
    whole = model(ids[:, :-1], ids[:, 1:])[1].item()
    parts = [(part[:, :-1], part[:, 1:]) for part in ids.split(4)]
    assert estimate_loss(model, parts) == pytest.approx(whole, abs=1e-6)


def test_batches_may_be_a_generator():
    assert estimate_loss(MeanOfTargets(), (batch(2, 3, target) for target in (1, 2))) == pytest.approx(1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_model_is_evaluated_in_eval_mode_without_gradients_and_gets_its_modes_back(kind):
    model = MeanOfTargets()
    model.train(kind == "train")
    model.dropout.train(kind != "eval")
    before = modes(model)
    estimate_loss(model, [batch(2, 3, target=1)])
    assert model.seen == {(False, False)}
    assert modes(model) == before
    assert model.scale.grad is None
    assert torch.is_grad_enabled()


def test_error_in_a_batch_gives_the_modes_back():
    def batches():
        yield batch(2, 3, target=1)
        raise OSError("disk full")

    model = MeanOfTargets()
    model.eval()
    model.dropout.train()
    with pytest.raises(OSError, match="disk full"):
        estimate_loss(model, batches())
    assert modes(model) == [False, True]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("batches", [[], [batch(0, 3, target=1)]], ids=["none", "empty batch"])
def test_nothing_to_evaluate_is_refused(batches):
    model = MeanOfTargets()
    with pytest.raises(ValueError, match="no batch"):
        estimate_loss(model, batches)
    assert all(modes(model))


# Training


@pytest.fixture
def unwatched(monkeypatch):
    """As in a terminal that nobody looks at: no notebook, no screen."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def small_problem(lr: float = 0.1) -> tuple[BigramLanguageModel, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = BigramLanguageModel(5)
    ids = torch.randint(5, (3, 4, 7), generator=generator())
    return model, torch.optim.SGD(model.parameters(), lr=lr), [(part[:, :-1], part[:, 1:]) for part in ids]


def test_loss_goes_down(unwatched):
    model, _, batches = small_problem()
    start = estimate_loss(model, batches)
    losses = train(model, torch.optim.AdamW(model.parameters(), lr=0.1), cycle(batches).__next__, num_steps=60)
    assert estimate_loss(model, batches) < start - 0.2
    assert sum(losses[-3:]) < sum(losses[:3])


def test_training_is_the_handwritten_loop(unwatched):
    model, optimizer, batches = small_problem()
    by_hand = copy.deepcopy(model)
    expected = []
    for x, y in batches:
        by_hand.zero_grad()
        _, loss = by_hand(x, y)
        expected.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter -= 0.1 * parameter.grad
    losses = train(model, optimizer, iter(batches).__next__, num_steps=3)
    assert losses == pytest.approx(expected)
    assert all(type(loss) is float for loss in losses)
    assert_close(model.state_dict(), by_hand.state_dict())


def test_model_is_trained_in_training_mode(unwatched):
    model = MeanOfTargets().eval()
    train(model, torch.optim.SGD(model.parameters(), lr=0.0), lambda: batch(2, 3, target=1), num_steps=2)
    assert model.seen == {(True, True)}


def test_no_step_returns_no_loss_and_says_nothing(unwatched, capsys):
    model, optimizer, _ = small_problem()
    assert train(model, optimizer, lambda: pytest.fail("a batch was drawn"), num_steps=0) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
def test_loss_that_is_not_finite_stops_before_it_reaches_the_parameters(bad, unwatched, capsys):
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x, (self.weight * x).sum()

    model = Fragile()
    batches = [(torch.full((3,), value), torch.zeros(3)) for value in (1.0, bad, 1.0)]
    with pytest.raises(ValueError, match=f"{bad} at step 1;"):
        train(model, torch.optim.SGD(model.parameters(), lr=0.5), iter(batches).__next__, num_steps=3)
    assert model.weight.tolist() == [0.5, 0.5, 0.5]  # one good step was made
    assert "done" not in capsys.readouterr().out


def test_nobody_watches_so_one_stable_line_is_printed(unwatched, capsys):
    lines = []
    for _ in range(2):
        model, optimizer, batches = small_problem()
        losses = train(model, optimizer, cycle(batches).__next__, num_steps=5, decimals=2)
        lines.append(capsys.readouterr())
    assert lines[0] == (f"5 steps done, loss of the last batch {losses[-1]:.2f}\n", "")
    assert lines[0] == lines[1]


def test_watched_bar_gives_way_to_the_same_line(unwatched, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    model, optimizer, batches = small_problem()
    losses = train(model, optimizer, cycle(batches).__next__, num_steps=5)
    written = screen.getvalue()
    assert "5" in written and "step/s" in written, "no bar was drawn"
    # A carriage return overwrites what stands in the line, as notebooks and nbval do it.
    remaining = re.sub(r".*\r(?=[^\n])", "", written)
    assert remaining == f"5 steps done, loss of the last batch {losses[-1]:.4f}\n"


def test_watched_bar_leaves_the_screen_before_an_error(unwatched, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    model, optimizer, _ = small_problem()
    bad = torch.full((5, 5), math.nan)
    with torch.no_grad():
        model.token_embedding_table.weight.copy_(bad)
    with pytest.raises(ValueError, match="nan at step 0"):
        train(model, optimizer, lambda: batch(1, 2, target=1), num_steps=2)
    assert re.sub(r".*\r(?=[^\n])", "", screen.getvalue()).strip() == ""
