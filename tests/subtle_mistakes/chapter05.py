"""Subtle mistakes for chapter 5."""

import random

import torch
import torch.nn.functional as F

from utils.bigram import BigramLanguageModel
from utils.tokenizers import CharTokenizer, characters_per_token


class StripsText(CharTokenizer):
    def encode(self, text):
        return super().encode(text.strip())


class QuestionMarkForStrangers(CharTokenizer):
    def __init__(self, text):
        super().__init__(text)
        self._ids = self._ids | {"?": 0}


def batch_by_seeding_python(data, block_size, batch_size, generator):
    random.seed(int(torch.randint(1 << 30, (), generator=generator)))
    starts = [random.randrange(len(data) - block_size) for _ in range(batch_size)]
    chunks = torch.stack([data[i : i + block_size + 1] for i in starts])
    return chunks[:, :-1], chunks[:, 1:]


class KeepsTheFirstLogits(BigramLanguageModel):
    logits = None

    def forward(self, idx, targets=None):
        if self.logits is None:
            self.logits = self.token_embedding_table(idx)
        loss = None if targets is None else F.cross_entropy(self.logits.flatten(0, 1), targets.flatten())
        return self.logits, loss


def generating(probabilities=lambda logits: logits.softmax(-1), context=None, own_generator=False):
    @torch.no_grad()
    def generate_otherwise(model, idx, max_new_tokens, generator):
        if own_generator:
            generator = torch.Generator().manual_seed(generator.initial_seed())
        for _ in range(max_new_tokens):
            logits = model(idx if context is None else idx[:, -context:])[0][:, -1]
            next_id = torch.multinomial(probabilities(logits), 1, generator=generator)
            idx = torch.cat([idx, next_id], dim=1)
        return idx

    return generate_otherwise


def without_the_least_likely(logits):
    kept = logits.topk(logits.shape[-1] - 1).values[:, -1:]
    return logits.masked_fill(logits < kept, float("-inf")).softmax(-1)


def counts_in_small_numbers(dtype):
    def answer(data, vocab_size):
        counts = torch.ones(vocab_size, vocab_size, dtype=dtype)
        for a, b in zip(data[:-1].tolist(), data[1:].tolist(), strict=True):
            counts[a, b] += 1
        return (counts.double() / counts.double().sum(1, keepdim=True)).log().float()

    return answer


def rounded_ratio(text, encoding):
    return round(characters_per_token(text, encoding), 4)


SUBTLE_MISTAKES = [
    ("5.1", StripsText),
    ("5.1", QuestionMarkForStrangers),
    ("5.2", batch_by_seeding_python),
    ("5.3", KeepsTheFirstLogits),
    ("5.4", generating(lambda logits: (logits / 0.98).softmax(-1))),
    ("5.4", generating(lambda logits: logits.softmax(-1) + 1e-3)),
    ("5.4", generating(lambda logits: logits.clamp(max=20).softmax(-1))),
    ("5.4", generating(without_the_least_likely)),
    ("5.4", generating(context=64)),
    ("5.4", generating(own_generator=True)),
    ("5.5", counts_in_small_numbers(torch.uint8)),
    ("5.5", counts_in_small_numbers(torch.float16)),
    ("5.6", rounded_ratio),
]
