"""The bigram model: counting pairs, the loss, and the optimum that counting gives."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from utils.bigram import BigramLanguageModel, bigram_log_probs
from utils.data import load_tinyshakespeare, train_val_split
from utils.tokenizers import CharTokenizer
from utils.training import get_batch


@pytest.fixture(scope="module")
def corpus() -> Tensor:
    """The training part of tinyshakespeare as ids (N,)."""
    text = load_tinyshakespeare()
    train, _ = train_val_split(torch.tensor(CharTokenizer(text).encode(text)))
    return train


@st.composite
def ids_and_vocabulary(draw: st.DrawFn) -> tuple[list[int], int]:
    vocab_size = draw(st.integers(1, 7))
    return draw(st.lists(st.integers(0, vocab_size - 1), max_size=60)), vocab_size


def model_with(table: Tensor) -> BigramLanguageModel:
    model = BigramLanguageModel(len(table)).to(table.dtype)
    with torch.no_grad():
        model.token_embedding_table.weight.copy_(table)
    return model


# Counting


@settings(deadline=None)
@given(case=ids_and_vocabulary())
def test_log_probs_agree_with_counting_pair_by_pair(case):
    ids, vocab_size = case
    pairs = Counter(pairwise(ids))
    expected = []
    for previous in range(vocab_size):
        total = sum(pairs[previous, following] for following in range(vocab_size))
        row = [(pairs[previous, following] + 1) / (total + vocab_size) for following in range(vocab_size)]
        expected.append([math.log(share) for share in row])
    log_probs = bigram_log_probs(torch.tensor(ids, dtype=torch.int64), vocab_size)
    assert log_probs.dtype == torch.float32
    assert_close(log_probs, torch.tensor(expected))


@settings(deadline=None)
@given(case=ids_and_vocabulary())
def test_every_row_is_a_distribution_without_zeros(case):
    ids, vocab_size = case
    probs = bigram_log_probs(torch.tensor(ids, dtype=torch.int64), vocab_size).exp()
    assert (probs > 0).all()
    assert_close(probs.sum(dim=1), torch.ones(vocab_size))


def test_row_is_the_previous_token_and_column_the_next():
    probs = bigram_log_probs(torch.tensor([0, 1, 0, 1, 0, 1]), vocab_size=3).exp()  # 0 → 1 three times, 1 → 0 twice
    assert_close(probs, torch.tensor([[1 / 6, 4 / 6, 1 / 6], [3 / 5, 1 / 5, 1 / 5], [1 / 3, 1 / 3, 1 / 3]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_integers_count_as_wide_ones_do(dtype):
    ids = torch.randint(65, (500,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(bigram_log_probs(ids.to(dtype), 65), bigram_log_probs(ids, 65))


@pytest.mark.parametrize("ids", [[0, 5], [5, 0], [-1, 0], [0, 99, 1]])
def test_id_outside_the_vocabulary_is_refused_by_number(ids):
    wrong = min(ids) if min(ids) < 0 else max(ids)
    with pytest.raises(ValueError, match=rf"0\.\.4.*(?<!\d){wrong}(?!\d)"):
        bigram_log_probs(torch.tensor(ids), vocab_size=5)


@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_data_that_is_no_sequence_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match="one dimension") as caught:
        bigram_log_probs(torch.zeros(shape, dtype=torch.int64), vocab_size=5)
    assert str(shape) in str(caught.value)


# The model


def test_logits_are_rows_of_the_table():
    table = torch.arange(25.0).view(5, 5)
    idx = torch.tensor([[0, 3, 1], [4, 4, 2]])
    logits, loss = model_with(table)(idx)
    assert loss is None
    assert torch.equal(logits, table[idx])


@pytest.mark.parametrize(("batch", "tokens"), [(4, 8), (1, 1), (3, 5)])
def test_loss_is_the_mean_cross_entropy_of_all_predictions(batch, tokens):
    generator = torch.Generator().manual_seed(0)
    idx = torch.randint(7, (batch, tokens), generator=generator)
    targets = torch.randint(7, (batch, tokens), generator=generator)
    logits, loss = BigramLanguageModel(7)(idx, targets)
    assert logits.shape == (batch, tokens, 7)
    assert_close(loss, F.cross_entropy(logits.permute(0, 2, 1), targets))


def test_layout_of_the_ids_in_memory_does_not_matter():
    model, idx = BigramLanguageModel(6), torch.arange(6).view(2, 3).T
    assert not idx.is_contiguous()
    _, loss = model(idx, idx.flip(0))
    assert_close(loss, model(idx.contiguous(), idx.flip(0).contiguous())[1])


def test_table_is_the_only_parameter():
    model = BigramLanguageModel(7)
    assert {name: tuple(parameter.shape) for name, parameter in model.named_parameters()} == {
        "token_embedding_table.weight": (7, 7)
    }


@pytest.mark.parametrize("vocab_size", [0, -2])
def test_empty_vocabulary_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"{vocab_size}$"):
        BigramLanguageModel(vocab_size)


def test_initial_loss_of_the_lecture(corpus):
    x, y = get_batch(corpus, 8, 4, torch.Generator().manual_seed(1337))
    torch.manual_seed(1337)
    _, loss = BigramLanguageModel(65)(x, y)
    assert loss.item() == pytest.approx(4.8786, abs=5.1e-5)


def test_table_of_equal_logits_loses_the_logarithm_of_the_vocabulary(corpus):
    _, loss = model_with(torch.zeros(65, 65))(corpus[None, :999], corpus[None, 1:1000])
    assert loss.item() == pytest.approx(math.log(65), abs=1e-5)
    assert math.log(65) == pytest.approx(4.1744, abs=5e-5)


# The optimum


def pair_counts(ids: Tensor, vocab_size: int) -> Tensor:
    counts = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    return counts.index_put_((ids[:-1], ids[1:]), torch.ones((), dtype=torch.float64), accumulate=True)


def counted_table(ids: Tensor, vocab_size: int) -> Tensor:
    """log(count / row total) in float64, without smoothing: -inf where a pair does not occur."""
    counts = pair_counts(ids, vocab_size)
    return (counts / counts.sum(dim=1, keepdim=True)).log().nan_to_num(nan=0.0, neginf=-math.inf)


def loss_of(table: Tensor, ids: Tensor) -> float:
    with torch.no_grad():
        return model_with(table)(ids[None, :-1], ids[None, 1:])[1].item()


@settings(deadline=None)
@given(case=ids_and_vocabulary(), seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.01, 0.3, 3.0]))
def test_no_table_does_better_than_counting(case, seed, step):
    ids, vocab_size = torch.tensor(case[0], dtype=torch.int64), case[1]
    assume(len(ids) > 1)
    noise = torch.randn(vocab_size, vocab_size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    optimum = counted_table(ids, vocab_size)
    best = loss_of(optimum, ids)
    assert best <= loss_of(noise, ids) + 1e-9
    assert best <= loss_of(optimum + step * noise, ids) + 1e-9
    assert best <= loss_of(bigram_log_probs(ids, vocab_size).double(), ids) + 1e-6


def test_smoothing_costs_almost_nothing_on_the_corpus(corpus):
    share = pair_counts(corpus, 65) / (len(corpus) - 1)
    optimum = -(share * counted_table(corpus, 65).clamp(min=-100)).sum()  # 0 times -inf would be NaN
    smoothed = -(share * bigram_log_probs(corpus, 65)).sum()
    assert optimum < smoothed < optimum + 0.005
    assert 2.4 < optimum < 2.5


def test_training_moves_the_loss_towards_the_optimum_and_not_below():
    ids = torch.tensor([0, 1, 2, 0, 1, 1, 2, 0, 0, 1, 2, 2] * 5)
    torch.manual_seed(0)
    model = BigramLanguageModel(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    losses = []
    for _ in range(200):
        _, loss = model(ids[None, :-1], ids[None, 1:])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimum = loss_of(counted_table(ids, 3), ids)
    assert losses[0] > optimum + 0.1
    assert optimum - 1e-6 < losses[-1] < optimum + 0.01
