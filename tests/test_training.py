"""Batches, evaluation and the training loop."""

from __future__ import annotations

import copy
import io
import math
import re
import sys
from collections.abc import Callable
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from utils.bigram import BigramLanguageModel
from utils.data import load_tinyshakespeare, train_val_split
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.modes import evaluating
from utils.tokenizers import CharTokenizer
from utils.training import (
    accumulate_gradients,
    consecutive_batches,
    cross_entropy,
    estimate_loss,
    get_batch,
    learning_rate,
    parameter_groups,
    perplexity,
    train,
)


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


@settings(deadline=None)
@given(length=st.integers(2, 40), block_size=st.integers(1, 9), batch_size=st.integers(1, 5))
def test_whole_text_is_read_once_and_in_order(length, block_size, batch_size):
    batches = list(consecutive_batches(torch.arange(length, dtype=torch.int32), block_size, batch_size))
    for x, y in batches:
        assert x.shape == y.shape and x.dtype == y.dtype == torch.int64
        assert 1 <= x.shape[0] <= batch_size and 1 <= x.shape[1] <= block_size
        assert torch.equal(y, x + 1)
    assert torch.cat([y.flatten() for _, y in batches]).tolist() == list(range(1, length))
    assert all(x.shape == (batch_size, block_size) for x, _ in batches[:-2])


@pytest.mark.parametrize(("length", "block_size", "batch_size"), [(1, 4, 4), (0, 4, 4), (9, 0, 4), (9, 4, 0)])
def test_text_without_a_target_and_sizes_below_one_are_refused(length, block_size, batch_size):
    with pytest.raises(ValueError, match=f"block_size={block_size}, batch_size={batch_size}, {length} tokens$"):
        list(consecutive_batches(torch.arange(length), block_size, batch_size))


# The loss


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    vocab_size=st.integers(1, 9),
    size=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    shift=st.sampled_from([0.0, 1e4, -1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_cross_entropy_is_that_of_pytorch(shape, vocab_size, size, shift, seed):
    source = generator(seed)
    logits = shift + size * torch.randn(*shape, vocab_size, generator=source, dtype=torch.float64)
    targets = torch.randint(vocab_size, shape, generator=source)
    pairs = [logits.clone().requires_grad_() for _ in range(2)]
    losses = [cross_entropy(pairs[0], targets), F.cross_entropy(pairs[1].view(-1, vocab_size), targets.flatten())]
    assert_close(*losses, atol=1e-9, rtol=1e-9)
    for loss in losses:
        loss.backward()
    assert_close(pairs[0].grad, pairs[1].grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("extreme", [1e4, -1e4, 3e38])
def test_extreme_scores_have_a_finite_loss_and_gradient(extreme):
    logits = torch.tensor([[extreme, 0.0, 0.0], [0.0, extreme, extreme]], requires_grad=True)
    for targets in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        loss = cross_entropy(logits, targets)
        assert_close(loss, F.cross_entropy(logits, targets))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()


def test_excluded_tokens_cost_nothing():
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    assert cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log(2))


def test_perplexity_counts_the_choices():
    assert perplexity(math.log(65)) == pytest.approx(65)
    assert type(perplexity(0.0)) is float and perplexity(0.0) == 1
    assert_close(perplexity(torch.tensor([0.0, math.log(8)])), torch.tensor([1.0, 8.0]))


# The learning rate


@pytest.mark.parametrize(("warmup_steps", "max_steps"), [(10, 110), (1, 7), (30, 31)])
def test_schedule_is_pytorchs_warmup_followed_by_its_cosine(warmup_steps, max_steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=3e-3)
    schedulers = torch.optim.lr_scheduler
    warmup = schedulers.LinearLR(optimizer, start_factor=1e-12, total_iters=warmup_steps)
    cosine = schedulers.CosineAnnealingLR(optimizer, T_max=max_steps - warmup_steps, eta_min=3e-4)
    both = schedulers.SequentialLR(optimizer, [warmup, cosine], milestones=[warmup_steps])
    for step in range(max_steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(step, 3e-3, 3e-4, warmup_steps, max_steps) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        both.step()


@given(
    max_lr=st.floats(1e-6, 1), fraction=st.floats(0, 1), warmup=st.integers(0, 20), decay=st.integers(1, 50),
    step=st.integers(0, 100),
)  # fmt: skip
def test_rate_rises_then_falls_and_stays(max_lr, fraction, warmup, decay, step):
    def rate(step: int) -> float:
        return learning_rate(step, max_lr, fraction * max_lr, warmup, warmup + decay)

    assert rate(warmup) == pytest.approx(max_lr)
    assert 0 <= rate(step) <= max_lr * (1 + 1e-9)
    if step < warmup:
        assert rate(step) == pytest.approx(max_lr * step / warmup)
    elif step < warmup + decay:
        assert rate(step) >= rate(step + 1) * (1 - 1e-9) and rate(step) >= fraction * max_lr * (1 - 1e-9)
    else:
        assert rate(step) == fraction * max_lr


def test_nothing_but_warmup_ends_at_the_smallest_rate():
    assert [learning_rate(step, 1.0, 0.1, 2, 2) for step in range(4)] == [0.0, 0.5, 0.1, 0.1]


# Groups of parameters


def small_gpt(seed: int = 0, **changes: object) -> GPTModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 11, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2, "drop_rate": 0.0}
    return GPTModel(GPTConfig(**sizes | {"init_std": 0.2} | changes))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_matrices_decay_and_vectors_do_not(tied):
    model = small_gpt(tied=tied)
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    wanted = {id(p) for name, p in model.named_parameters() if not name.endswith(("bias", "scale", "shift"))}
    assert {id(p) for p in decayed["params"]} == wanted
    together = [id(p) for group in (decayed, others) for p in group["params"]]
    assert len(together) == len(set(together)) == len(list(model.parameters()))
    torch.optim.AdamW([decayed, others])  # refuses a parameter that stands in two groups


def test_frozen_parameters_stay_out_of_the_groups():
    model = small_gpt()
    model.tok_emb.requires_grad_(False)
    model.trf_blocks[0].requires_grad_(False)
    grouped = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_only_matrices_shrink_where_no_gradient_pulls():
    model = small_gpt()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert_close(parameter.detach(), before[name] * (0.95 if parameter.dim() > 1 else 1))


# A batch in parts


def ids_of(rows: int, tokens: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (rows, tokens + 1), generator=generator(seed))
    return ids[:, :-1], ids[:, 1:]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("rows", "part"), [(8, 8), (8, 4), (8, 1), (7, 3), (5, 4), (3, 100), (1, 1)])
def test_parts_add_up_to_the_gradients_of_the_whole_batch(rows, part):
    model, (x, y) = small_gpt(), ids_of(rows)
    _, loss = model(x, y)
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    calls = []
    model.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    mean = accumulate_gradients(model, x, y, micro_batch_size=part)
    assert type(mean) is float and mean == pytest.approx(loss.item(), abs=1e-6)
    assert_close(gradients(model), expected, atol=1e-6, rtol=1e-5)
    assert calls == [len(piece) for piece in x.split(part)]


def test_gradients_are_added_to_what_is_there():
    model, (x, y) = small_gpt(), ids_of(4)
    accumulate_gradients(model, x, y, 3)
    once = gradients(model)
    accumulate_gradients(model, x, y, 3)
    assert_close(gradients(model), {name: 2 * gradient for name, gradient in once.items()}, atol=1e-6, rtol=1e-5)


def test_scaled_loss_scales_the_gradients_and_not_the_result():
    model, (x, y) = small_gpt(), ids_of(5)
    plain = accumulate_gradients(model, x, y, 2)
    expected = {name: 8 * gradient for name, gradient in gradients(model).items()}
    model.zero_grad()
    assert accumulate_gradients(model, x, y, 2, scale_loss=lambda loss: 8 * loss) == plain
    assert_close(gradients(model), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("rows", "part"), [(4, 0), (4, -1), (0, 2)])
def test_parts_below_one_row_are_refused(rows, part):
    with pytest.raises(ValueError, match=f"micro_batch_size={part} and {rows} rows"):
        accumulate_gradients(small_gpt(), *ids_of(rows), part)


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


# Schedule, clipping, parts, precision


def next_of(rows: int, tokens: int = 6) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same fresh batches at every call of this function."""
    seeds = iter(range(10_000))
    return lambda: ids_of(rows, tokens, seed=next(seeds))


def noted_at_each_update(optimizer: torch.optim.Optimizer, note: Callable[[], object]) -> list:
    notes: list = []
    optimizer.register_step_pre_hook(lambda *arguments: notes.append(note()))
    return notes


def test_schedule_sets_the_rate_of_every_group_before_the_update(unwatched):
    model = small_gpt()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=123.0)
    rates = noted_at_each_update(optimizer, lambda: [group["lr"] for group in optimizer.param_groups])
    train(model, optimizer, next_of(2), 5, first_step=2, schedule=lambda step: 0.001 * step)
    assert rates == [[0.001 * step] * 2 for step in (2, 3, 4)]


def test_without_a_schedule_the_rate_stays(unwatched):
    model = small_gpt()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    train(model, optimizer, next_of(2), 3)
    assert optimizer.param_groups[0]["lr"] == 0.25


def length_of_gradients(model: nn.Module) -> float:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()


@pytest.mark.parametrize("part", [None, 2])
def test_long_gradients_are_clipped_and_short_ones_kept(part, unwatched):
    lengths = []
    for limit in (None, 0.1, 1e6):
        model = small_gpt()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        noted = noted_at_each_update(optimizer, lambda model=model: length_of_gradients(model))
        train(model, optimizer, next_of(4), 3, max_grad_norm=limit, micro_batch_size=part)
        lengths.append(noted)
    free, short, kept = lengths
    assert min(free) > 0.5
    assert short == pytest.approx([0.1] * 3, rel=1e-4)
    assert kept == pytest.approx(free, rel=1e-6)


def test_clipping_keeps_the_direction(unwatched):
    updates = []
    for limit in (None, 0.01):
        model = small_gpt()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, torch.optim.SGD(model.parameters(), lr=1.0), next_of(4), 1, max_grad_norm=limit)
        updates.append(nn.utils.parameters_to_vector(model.parameters()).detach() - before)
    assert updates[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    assert F.cosine_similarity(*updates, dim=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("part", [1, 2, 3, 100])
def test_small_parts_give_the_same_run(part, unwatched, capsys):
    runs = []
    for size in (None, part):
        model = small_gpt()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = train(model, optimizer, next_of(5), 10, max_grad_norm=1.0, micro_batch_size=size)
        runs.append(losses)
    assert runs[1] == pytest.approx(runs[0], abs=1e-5)


def test_parts_of_no_rows_are_refused(unwatched):
    model = small_gpt()
    with pytest.raises(ValueError, match="micro_batch_size=0"):
        train(model, torch.optim.SGD(model.parameters()), next_of(2), 1, micro_batch_size=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_computes_in_the_small_type_and_keeps_the_weights(dtype, unwatched):
    curves, first_gradients = [], []
    for autocast_dtype in (None, dtype):
        model, seen = small_gpt(), set()
        model.out_head.register_forward_hook(lambda module, given, output, seen=seen: seen.add(output.dtype))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        noted = noted_at_each_update(optimizer, lambda model=model: gradients(model))
        batch = ids_of(4)
        losses = train(
            model, optimizer, lambda batch=batch: batch, 40, max_grad_norm=1.0, autocast_dtype=autocast_dtype
        )
        assert seen == {autocast_dtype or torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert losses[-1] < 0.7 * losses[0]
        curves.append(losses)
        first_gradients.append(torch.cat([gradient.flatten() for gradient in noted[0].values()]))
    assert curves[1][:5] == pytest.approx(curves[0][:5], rel=0.02)
    # scaled up for float16, but back to their size before they are clipped and used
    assert_close(*first_gradients, atol=0.01, rtol=0)
    assert not torch.is_autocast_enabled("cpu")


def test_float16_loses_no_small_gradients(unwatched):
    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1, bias=False)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x, 1e-8 * self.linear(x).float().sum()  # float16 ends at 6e-8

    model = Faint()
    before = model.linear.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e8)
    train(model, optimizer, lambda: (torch.ones(1, 4), torch.ones(1, 4)), 1, autocast_dtype=torch.float16)
    assert_close(before - model.linear.weight.detach(), torch.ones(1, 4), atol=0.01, rtol=0)


# Around the steps


def test_steps_are_counted_from_the_first_one(unwatched, capsys):
    model, optimizer, batches = small_problem()
    done = []
    losses = train(
        model, optimizer, cycle(batches).__next__, num_steps=7, decimals=2, first_step=4, after_step=done.append
    )
    assert len(losses) == 3 and done == [5, 6, 7]
    assert capsys.readouterr().out == f"7 steps done, loss of the last batch {losses[-1]:.2f}\n"


def test_without_decimals_the_last_line_names_no_loss(unwatched, capsys):
    model, optimizer, batches = small_problem()
    train(model, optimizer, cycle(batches).__next__, num_steps=3, decimals=None)
    assert capsys.readouterr().out == "3 steps done\n"


def test_run_that_is_complete_makes_no_step(unwatched, capsys):
    model, optimizer, _ = small_problem()
    options = {"first_step": 5, "after_step": lambda done: pytest.fail("a step was made")}
    assert train(model, optimizer, lambda: pytest.fail("a batch was drawn"), 5, **options) == []
    assert capsys.readouterr() == ("", "")


def test_after_step_sees_the_updated_model(unwatched):
    model, optimizer, batches = small_problem()
    weight, seen = model.token_embedding_table.weight, []
    before = weight.detach().clone()
    train(model, optimizer, iter(batches).__next__, 3, after_step=lambda done: seen.append(weight.detach().clone()))
    assert not torch.equal(seen[0], before) and not torch.equal(seen[1], seen[0])
    assert torch.equal(seen[-1], weight)


def test_evaluation_between_the_steps_changes_nothing(unwatched):
    def look(model: GPTModel) -> None:
        estimate_loss(model, [ids_of(2)])

    runs = []
    for evaluates in (False, True):
        model = small_gpt(drop_rate=0.2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        after_step = (lambda done, model=model: look(model)) if evaluates else None
        torch.manual_seed(1)
        runs.append(train(model, optimizer, next_of(3), 5, after_step=after_step))
    assert runs[0] == runs[1]


def test_loss_that_is_not_finite_ends_the_run_before_the_callback_and_the_moments(unwatched):
    model = small_gpt()
    optimizer, done = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    batches = next_of(3)

    def after_step(step: int) -> None:
        done.append((step, copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())))
        if step == 2:
            with torch.no_grad():
                model.tok_emb.weight[:] = math.nan
            done[-1][2]["tok_emb.weight"][:] = math.nan

    with pytest.raises(ValueError, match="nan at step 2; a lower learning rate often helps"):
        train(model, optimizer, batches, 5, max_grad_norm=1.0, after_step=after_step)
    assert [step for step, *_ in done] == [1, 2]
    assert_close(optimizer.state_dict()["state"], done[-1][1]["state"], atol=0, rtol=0)
    assert_close(dict(model.state_dict()), dict(done[-1][2]), atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_frozen_and_unused_parameters_do_not_disturb(dtype, unwatched):
    class WithSpareParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = small_gpt()
            self.unused = nn.Linear(3, 3)  # its gradient stays None
            self.model.trf_blocks[0].requires_grad_(False)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.model(x, y)

    model = WithSpareParts()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # the frozen ones included
    train(model, optimizer, next_of(4), 3, max_grad_norm=0.5, micro_batch_size=3, autocast_dtype=dtype)
    for name, tensor in model.state_dict().items():
        untouched = name.startswith(("unused", "model.trf_blocks.0")) or name.endswith("mask")
        assert torch.equal(tensor, before[name]) is untouched, name


def test_gradients_from_before_the_run_are_forgotten(unwatched):
    runs = []
    for stale in (False, True):
        model = small_gpt()
        if stale:
            accumulate_gradients(model, *ids_of(3, seed=9), 3)
        runs.append(train(model, torch.optim.SGD(model.parameters(), lr=0.1), next_of(3), 3))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("first_step", [0, 3])
def test_bar_counts_the_steps_of_this_run(first_step, unwatched, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    model, optimizer, batches = small_problem()
    train(model, optimizer, cycle(batches).__next__, num_steps=5, first_step=first_step)
    assert f"/{5 - first_step} [" in screen.getvalue()
