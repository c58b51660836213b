"""Sampling: the prompt is kept, the draws follow the model, and the model is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from utils.bigram import BigramLanguageModel
from utils.generation import generate

PROBABILITIES = (0.4, 0.3, 0.2, 0.07, 0.03)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bigram(vocab_size: int = 7) -> BigramLanguageModel:
    torch.manual_seed(0)
    return BigramLanguageModel(vocab_size)


class Recorder(nn.Module):
    """A model that notes how it is called. Only the logits of the last position follow PROBABILITIES."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.Sequential(nn.LayerNorm(5), nn.Dropout(0.1))
        self.bias = nn.Parameter(torch.zeros(5))
        self.fails = fails
        self.inputs: list[Tensor] = []
        self.seen: set[tuple[bool, bool]] = set()  # (training, gradients are tracked)

    def forward(self, idx: Tensor) -> tuple[Tensor, None]:
        self.inputs.append(idx)
        self.seen |= {(module.training, torch.is_grad_enabled()) for module in self.modules()}
        if self.fails:
            raise RuntimeError("no logits today")
        logits = torch.zeros(*idx.shape, 5)
        logits[:, :-1, 0] = 100  # whoever reads an earlier position sees a token that is certain
        logits[:, -1] = torch.tensor(PROBABILITIES).log()
        return logits + self.bias, None


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def set_modes(model: nn.Module, kind: str) -> None:
    model.train(kind == "train")
    if kind == "mixed":
        model.dropout.train()  # the model itself is in eval mode


def test_prompt_is_kept_and_new_ids_follow():
    prompt = torch.tensor([[3, 1, 4], [1, 5, 2]])
    before = prompt.clone()
    ids = generate(bigram(), prompt, 20, generator())
    assert (ids.shape, ids.dtype) == ((2, 23), torch.int64)
    assert torch.equal(ids[:, :3], prompt)
    assert torch.equal(prompt, before), "the prompt was modified"
    assert ids.min() >= 0 and ids.max() < 7


def test_no_new_token_gives_the_prompt():
    prompt = torch.tensor([[3, 1, 4]])
    assert torch.equal(generate(bigram(), prompt, 0, generator()), prompt)


def test_negative_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="-3"):
        generate(bigram(), torch.zeros(1, 1, dtype=torch.long), -3, generator())


def test_same_seed_gives_the_same_text_and_another_seed_another():
    prompt = torch.zeros(1, 1, dtype=torch.long)
    first = generate(bigram(), prompt, 50, generator(1))
    torch.manual_seed(99)
    torch.rand(5)
    assert torch.equal(generate(bigram(), prompt, 50, generator(1)), first)
    assert not torch.equal(generate(bigram(), prompt, 50, generator(2)), first)


def test_global_random_state_is_left_alone():
    model = bigram()
    before = torch.get_rng_state()
    generate(model, torch.zeros(2, 1, dtype=torch.long), 5, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_one_draw_per_step_from_the_given_generator():
    model, prompt = bigram(), torch.tensor([[3], [5]])
    source, expected = generator(7), prompt
    for _ in range(10):
        probs = torch.softmax(model(expected)[0][:, -1], dim=-1)
        expected = torch.cat([expected, torch.multinomial(probs, 1, generator=source)], dim=1)
    assert torch.equal(generate(model, prompt, 10, generator(7)), expected)


def test_model_is_fed_the_whole_sequence_at_every_step():
    model, prompt = Recorder(), torch.tensor([[3, 1], [0, 2]])
    ids = generate(model, prompt, 3, generator())
    assert len(model.inputs) == 3
    for step, fed in enumerate(model.inputs):
        assert torch.equal(fed, ids[:, : 2 + step])


def test_draws_follow_the_distribution_of_the_last_position():
    rows, steps = 4000, 5
    ids = generate(Recorder(), torch.zeros(rows, 2, dtype=torch.long), steps, generator())
    drawn = torch.bincount(ids[:, 2:].flatten(), minlength=5).double()
    expected = torch.tensor(PROBABILITIES, dtype=torch.float64) * rows * steps
    chi_square = ((drawn - expected) ** 2 / expected).sum()
    assert chi_square < 23.5  # 4 degrees of freedom: larger once in 10,000 seeds


def test_each_token_is_drawn_from_the_row_of_the_token_before():
    successor = torch.tensor([2, 0, 3, 1])
    model = BigramLanguageModel(4)
    with torch.no_grad():
        model.token_embedding_table.weight.copy_(100.0 * nn.functional.one_hot(successor, 4))
    ids = generate(model, torch.tensor([[0], [1], [2], [3]]), 6, generator())
    assert torch.equal(ids[:, 1:], successor[ids[:, :-1]])


def test_rows_are_drawn_independently():
    ids = generate(Recorder(), torch.zeros(8, 1, dtype=torch.long), 20, generator())
    assert len({tuple(row) for row in ids.tolist()}) == 8


@pytest.mark.parametrize("kind", ["train", "eval", "mixed"])
def test_model_runs_in_eval_mode_without_gradients_and_gets_its_modes_back(kind):
    model = Recorder()
    set_modes(model, kind)
    before = modes(model)
    ids = generate(model, torch.zeros(1, 1, dtype=torch.long), 2, generator())
    assert model.seen == {(False, False)}
    assert modes(model) == before
    assert not ids.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["train", "eval", "mixed"])
def test_modes_come_back_after_an_error(kind):
    model = Recorder(fails=True)
    set_modes(model, kind)
    before = modes(model)
    with pytest.raises(RuntimeError, match="no logits today"):
        generate(model, torch.zeros(1, 1, dtype=torch.long), 2, generator())
    assert modes(model) == before
    assert torch.is_grad_enabled()
