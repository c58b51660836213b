"""Sampling: the prompt is kept, the draws follow the model, and the model is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from utils.attention import KeyValueCache
from utils.bigram import BigramLanguageModel
from utils.generation import generate, sample_next
from utils.gpt import GPTModel, gpt2_state_dict
from utils.gpt_config import GPTConfig

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


# One token

LOGITS = torch.tensor([[0.5, 2.0, -1.0, 1.5, 0.0]])


def assert_drawn_from(probs: Tensor, **options: object) -> None:
    """20,000 tokens drawn from LOGITS follow these probabilities."""
    rows = 20_000
    ids = sample_next(LOGITS.expand(rows, -1), generator=generator(), **options)
    assert (ids.shape, ids.dtype) == ((rows, 1), torch.int64)
    drawn, expected = torch.bincount(ids[:, 0], minlength=5), rows * probs[0].double()
    possible = expected > 0
    assert drawn[~possible].sum() == 0
    chi_square = ((drawn - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 23.5  # at most 4 degrees of freedom: larger once in 10,000 seeds


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0, 100.0])
def test_scores_are_divided_by_the_temperature(temperature):
    assert_drawn_from(torch.softmax(LOGITS / temperature, dim=-1), temperature=temperature)


@pytest.mark.parametrize("top_k", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_only_the_likeliest_tokens_are_drawn_in_their_proportions(top_k, temperature):
    least = LOGITS.sort(descending=True).values[:, min(top_k, 5) - 1]
    probs = torch.softmax(LOGITS.masked_fill(least > LOGITS, -math.inf) / temperature, dim=-1)
    assert_drawn_from(probs, temperature=temperature, top_k=top_k)


def test_exactly_k_tokens_stay_when_scores_are_equal():
    ids = sample_next(torch.zeros(2000, 8), top_k=3, generator=generator())
    assert len(ids.unique()) == 3


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"temperature": 1e-30}, {"temperature": 1e-45}])
@pytest.mark.parametrize("size", [1.0, 1e30])
def test_without_any_freedom_the_likeliest_token_is_taken(options, size):
    logits = size * torch.randn(50, 9, generator=generator())
    assert torch.equal(sample_next(logits, **options), logits.argmax(dim=-1, keepdim=True))


def test_likeliest_token_is_taken_without_a_draw():
    source = generator()
    before = source.get_state(), torch.get_rng_state()
    sample_next(LOGITS, temperature=0, generator=source)
    sample_next(LOGITS, temperature=0)
    assert torch.equal(source.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_without_a_generator_the_global_one_draws():
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sample_next(LOGITS.expand(50, -1)).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_scores_are_left_as_they_were():
    logits = LOGITS.clone()
    sample_next(logits, temperature=0.5, top_k=2, generator=generator())
    assert torch.equal(logits, LOGITS)


@pytest.mark.parametrize("temperature", [-1, -1e-9, math.nan])
def test_negative_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must not be negative, got {temperature}$"):
        sample_next(LOGITS, temperature)


@pytest.mark.parametrize("top_k", [0, -2])
def test_fewer_than_one_token_to_choose_from_is_refused(top_k):
    with pytest.raises(ValueError, match=f"top_k must be at least 1, got {top_k}$"):
        sample_next(LOGITS, top_k=top_k)


# GPT-2

CONTEXT = 12


def gpt(**changes: object) -> GPTModel:
    """A model with large weights, so that no two tokens are about equally likely, and much dropout."""
    sizes = {"vocab_size": 19, "context_length": CONTEXT, "emb_dim": 16, "n_heads": 4, "n_layers": 2}
    torch.manual_seed(0)
    model = GPTModel(GPTConfig(**sizes | {"drop_rate": 0.5, "init_std": 0.4} | changes))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=name.endswith("scale"), std=0.4)
    return model


def prompts(rows: int, tokens: int) -> Tensor:
    return torch.randint(19, (rows, tokens), generator=generator(5))


@pytest.mark.parametrize("cached", [False, True], ids=["uncached", "cached"])
@pytest.mark.parametrize("tokens", [1, 5, CONTEXT, CONTEXT + 4])
def test_greedy_text_is_the_loop_over_the_likeliest_tokens(tokens, cached):
    model, expected = gpt().eval(), prompts(3, tokens)
    for _ in range(15):
        with torch.no_grad():
            logits = model(expected[:, -CONTEXT:])
        expected = torch.cat([expected, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, prompts(3, tokens), 15, temperature=0, cached=cached), expected)
    assert len(expected[:, tokens:].unique()) > 3, "a text this dull proves little"


@pytest.mark.parametrize("fused", [False, True], ids=["written-out", "fused"])
@pytest.mark.parametrize(
    ("rows", "tokens", "new"),
    [(1, 1, 6), (4, 3, 5), (1, 1, CONTEXT - 1), (2, 5, CONTEXT - 4), (3, 4, 25), (2, CONTEXT, 9), (2, CONTEXT + 5, 6)],
    ids=["short", "batch", "to-the-last-place", "one-beyond", "far-beyond", "full-prompt", "long-prompt"],
)
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"top_k": 3}], ids=["plain", "hot", "top-k"])
def test_caches_change_nothing_but_the_time(rows, tokens, new, fused, options):
    model = gpt(fused=fused)
    texts = [
        generate(model, prompts(rows, tokens), new, generator(3), **options, cached=cached) for cached in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape == (rows, tokens + new)


def calls_of(model: GPTModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Filled while the model runs: how many tokens it was fed, and whether it had caches."""
    calls, forward = [], model.forward

    def noted(idx: Tensor, targets: Tensor | None = None, caches: list[KeyValueCache] | None = None) -> Tensor:
        calls.append((idx.shape[1], caches is not None))
        return forward(idx, targets, caches)

    monkeypatch.setattr(model, "forward", noted)
    return calls


def test_caches_save_the_tokens_that_were_seen(monkeypatch):
    model = gpt()
    calls = calls_of(model, monkeypatch)
    generate(model, prompts(1, CONTEXT - 3), 6)
    assert calls == [(CONTEXT - 3, True), (1, True), (1, True), (1, True), (CONTEXT, False), (CONTEXT, False)]


def test_caches_can_be_declined(monkeypatch):
    model = gpt()
    calls = calls_of(model, monkeypatch)
    generate(model, prompts(1, 2), 3, cached=False)
    assert calls == [(2, False), (3, False), (4, False)]


def test_caches_are_no_larger_than_the_text(monkeypatch):
    model, asked = gpt(), []
    new_caches = model.new_caches
    monkeypatch.setattr(model, "new_caches", lambda *sizes: asked.append(sizes) or new_caches(*sizes))
    generate(model, prompts(3, 2), 4)
    generate(model, prompts(2, 2), 100)
    assert asked == [(3, 6), (2, CONTEXT)]


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_gpt_runs_in_eval_mode_and_gets_its_mode_back(kind):
    model = gpt().train(kind == "train")
    texts = [generate(model, prompts(2, 3), 15, generator()) for _ in range(2)]
    assert torch.equal(*texts), "dropout was at work"
    assert set(modes(model)) == {kind == "train"}


def test_rows_of_a_batch_do_not_see_each_other():
    model, prompt = gpt(), prompts(3, 4)
    together = generate(model, prompt, 15, temperature=0)
    assert torch.equal(together, torch.cat([generate(model, row[None], 15, temperature=0) for row in prompt]))


@pytest.mark.parametrize(
    "prompt", [torch.zeros(1, 0), torch.zeros(3), torch.zeros(1, 1, 1)], ids=lambda p: str(p.dim())
)
@pytest.mark.parametrize("build", [bigram, gpt])
def test_prompt_of_another_shape_is_refused(prompt, build):
    with pytest.raises(ValueError, match=r"needs shape \(B, T\) with at least one token, got \("):
        generate(build(), prompt.long(), 2, generator())


def test_greedy_text_is_that_of_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = gpt()
    sizes = {"vocab_size": 19, "n_positions": CONTEXT, "n_embd": 16, "n_head": 4, "n_layer": 2}
    # nothing ends a text before its full length
    theirs = GPT2LMHeadModel(
        GPT2Config(**sizes, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
    ).eval()
    theirs.load_state_dict(gpt2_state_dict(model))
    for tokens in (1, 4, 9):
        prompt, new = prompts(3, tokens), CONTEXT - tokens
        options = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "do_sample": False}
        expected = theirs.generate(prompt, max_new_tokens=new, **options)
        assert torch.equal(generate(model, prompt, new, temperature=0), expected)
