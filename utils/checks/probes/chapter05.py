"""How to try the answers of chapter 5. Legend: B batch, T tokens, V vocabulary size, N tokens of a corpus."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.checks.probes.observe import (
    Case,
    Observation,
    Probe,
    RandomStates,
    apart,
    attempt,
    call_plainly,
    identical,
    load_parameters,
    normal,
    plainly,
    to_data,
)

SMALL_BATCHES, LARGE_BATCH = 400, 2000  # enough draws to see a start that is favoured or left out


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def some_seed(generator: torch.Generator) -> int:
    """A seed drawn from ``generator``, so that other runs try other draws."""
    return int(torch.randint(1 << 30, (), generator=generator))


def some_text(generator: torch.Generator, alphabet: str, length: int) -> str:
    """A text in which every letter of ``alphabet`` occurs, in no particular order."""
    picks = torch.randint(len(alphabet), (length - len(alphabet),), generator=generator).tolist()
    letters = [*alphabet, *(alphabet[i] for i in picks)]
    order = torch.randperm(length, generator=generator).tolist()
    return "".join(letters[i] for i in order)


# 5.1 ------------------------------------------------------------------------------------------------


def texts(generator: torch.Generator) -> list[Case]:
    cases = []
    for alphabet in ("hi there", "zyxabcABC", "to be, or not!\n"):
        letters = "".join(sorted(set(alphabet), reverse=True))
        text = some_text(generator, letters, 40)
        cases.append({"text": text, "sample": some_text(generator, letters, 15)})
    return cases


def odd_texts(generator: torch.Generator) -> list[Case]:
    return [
        {"text": some_text(generator, "éßäöü€🙂 \t\n", 30), "sample": " 🙂€ é\n", "other": "abc"},
        {"text": "a", "sample": "aaa", "other": "zab"},
        {"text": some_text(generator, "0123456789", 12), "sample": "", "other": "9 8"},
    ]


def texts_with_strangers(generator: torch.Generator) -> list[Case]:
    return [
        {"text": some_text(generator, "hi there"[1:], 20), "sample": "the€re", "names": ["€"]},
        {"text": some_text(generator, "abc", 9), "sample": "Ω", "names": ["Ω"]},
        {"text": some_text(generator, "abc", 7), "sample": "ab?", "names": ["?"]},
    ]


def observe_codec(answer: Any, case: Case) -> Observation:
    tokenizer = answer(case["text"])
    encoded = attempt(lambda: tokenizer.encode(case["sample"]))
    return {
        "vocab_size": attempt(lambda: tokenizer.vocab_size),
        "encode": encoded,
        "decode": attempt(lambda: tokenizer.decode(list(range(len(set(case["text"])))))),
        "round_trip": attempt(lambda: tokenizer.decode(tokenizer.encode(case["sample"]))),
    }


def observe_odd_codec(answer: Any, case: Case) -> Observation:
    tokenizer = answer(case["text"])
    answer(case["other"])  # a second tokenizer must not disturb the first
    ids = torch.arange(len(set(case["text"])))
    return {
        "encode": attempt(lambda: tokenizer.encode(case["sample"])),
        "round_trip": attempt(lambda: tokenizer.decode(tokenizer.encode(case["sample"]))),
        "decode_a_tensor": attempt(lambda: tokenizer.decode(ids)),
    }


def observe_stranger(answer: Any, case: Case) -> Observation:
    tokenizer = answer(case["text"])
    return {"error": attempt(lambda: tokenizer.encode(case["sample"]))}


# 5.2 ------------------------------------------------------------------------------------------------


def corpora(generator: torch.Generator) -> list[Case]:
    """Corpora without repeated tokens, so that a chunk shows where it came from."""
    sizes = [(50, 8, 4), (9, 8, 3), (30, 1, 5), (40, 5, 1), (23, 7, 9)]
    return [
        {
            "data": torch.randperm(n, generator=generator) + 100,
            "block_size": block_size,
            "batch_size": batch_size,
            "seed": some_seed(generator),
            "strided": n == 40,
        }
        for n, block_size, batch_size in sizes
    ]


def corpora_for_many_draws(generator: torch.Generator) -> list[Case]:
    return [
        {"data": torch.arange(n), "block_size": block_size, "seed": some_seed(generator)}
        for n, block_size in ((9, 3), (7, 4))
    ]


def observe_batch(answer: Any, case: Case) -> Observation:
    arguments = (case["data"], case["block_size"], case["batch_size"], seeded(case["seed"]))
    return {"result": call_plainly(answer, *arguments, strided=case["strided"])}


def observe_many_draws(answer: Any, case: Case) -> Observation:
    """First tokens of many small batches and of one large one; the data is arange, so they are the starts."""
    draws, data = seeded(case["seed"]), case["data"]

    def first_tokens(batch_size: int) -> Tensor:
        x, _ = answer(data.clone(), case["block_size"], batch_size, draws)
        return x[:, 0]  # (B,)

    return {
        "small_batches": attempt(lambda: torch.stack([first_tokens(2) for _ in range(SMALL_BATCHES)])),  # (400, 2)
        "large_batch": attempt(lambda: first_tokens(2000)),  # (2000,)
    }


def observe_sources(answer: Any, case: Case) -> Observation:
    data = torch.arange(1000)
    states = RandomStates()

    def batches(draws: torch.Generator) -> list[Any]:
        return [to_data(answer(data, case["block_size"], 16, draws)) for _ in range(2)]

    first, again = (attempt(lambda: batches(seeded(case["seed"]))) for _ in range(2))
    return {
        "same_seed_gives_the_same_batches": attempt(lambda: same(first, again)),
        "the_next_batch_is_another": attempt(lambda: not same(first[0], first[1])),
        "another_seed_gives_others": attempt(lambda: not same(first, batches(seeded(case["seed"] + 1)))),
        "inputs_unchanged": identical(data, torch.arange(1000)),
        **states.unchanged(),
    }


def same(first: Any, second: Any) -> bool:
    """Whether two nested lists of tensors hold the same numbers."""
    if isinstance(first, Tensor):
        return identical(first, second)
    return len(first) == len(second) and all(map(same, first, second))


# 5.3 ------------------------------------------------------------------------------------------------


def tables(generator: torch.Generator) -> list[Case]:
    return [
        {
            "token_embedding_table.weight": 2 * normal(generator, v, v),
            "idx": torch.randint(v, (b, t), generator=generator),
            "targets": torch.randint(v, (b, t), generator=generator),
        }
        for v, b, t in ((5, 2, 3), (7, 1, 4), (3, 4, 1), (6, 6, 6))
    ]


def precise_tables(generator: torch.Generator) -> list[Case]:
    return tables(generator) + [
        case | {"token_embedding_table.weight": case["token_embedding_table.weight"].double()}
        for case in tables(generator)
    ]


def loaded(answer: Any, case: Case) -> nn.Module:
    weight = case["token_embedding_table.weight"]
    return load_parameters(answer(len(weight)), {"token_embedding_table.weight": weight})


def observe_table(answer: Any, case: Case) -> Observation:
    model = answer(len(case["token_embedding_table.weight"]))
    return {
        "is_a_module": isinstance(model, nn.Module),
        "table_is_an_embedding": isinstance(getattr(model, "token_embedding_table", None), nn.Embedding),
        "parameter_shapes": attempt(
            lambda: [[name, list(parameter.shape)] for name, parameter in model.named_parameters()]
        ),
    }


def observe_logits(answer: Any, case: Case) -> Observation:
    model = loaded(answer, case)
    idx, targets, states = apart(case["idx"]), apart(case["targets"]), RandomStates()
    return {
        "logits_with_targets": attempt(lambda: model(idx, targets)[0]),
        "inputs_unchanged": identical(idx, case["idx"]) and identical(targets, case["targets"]),
        "without_targets": call_plainly(model, case["idx"]),
        "with_other_tokens": call_plainly(model, (case["idx"] + 1) % len(case["token_embedding_table.weight"])),
        **states.unchanged(),
    }


def observe_loss(answer: Any, case: Case) -> Observation:
    model = loaded(answer, case)
    raw: list[Any] = []
    stopped = attempt(lambda: raw.append(model(apart(case["idx"]), apart(case["targets"]))[1]))
    if stopped is not None:
        return {"loss": stopped}
    weight = model.get_parameter("token_embedding_table.weight")
    gradients = attempt(
        lambda: list(torch.autograd.grad(raw[0], [weight], allow_unused=True)) if raw[0].requires_grad else [None]
    )
    return {"loss": to_data(raw[0]), "gradients": gradients}


# 5.4 ------------------------------------------------------------------------------------------------


class Storyteller(nn.Module):
    """A model whose next token depends on all tokens before, so that a shortened prompt shows."""

    def __init__(self, tables: Tensor):
        super().__init__()
        self.tables = nn.Parameter(tables)  # (2, V, V): by the last token, by the sum of all
        self.dropout = nn.Dropout(0.5)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, None]:
        vocab_size = self.tables.shape[-1]
        history = (idx.cumsum(dim=1) + torch.arange(idx.shape[1])) % vocab_size  # (B, T)
        return self.tables[0][idx] + self.tables[1][history], None  # (B, T, V)


class Draws(TorchFunctionMode):
    """While active, writes down every call of ``multinomial``: probabilities, ids, and whether it had the generator."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator
        self.seen: list[list[Any]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "multinomial":
            weights = args[0] if args else kwargs["input"]
            self.seen.append([to_data(weights), to_data(result), kwargs.get("generator") is self.generator])
        return result


def prompts(generator: torch.Generator) -> list[Case]:
    sizes = [(6, 3, 4, 8), (5, 1, 1, 12), (9, 2, 7, 5), (4, 5, 2, 1)]
    return [
        {
            "tables": normal(generator, 2, v, v),
            "idx": torch.randint(v, (b, t), generator=generator),
            "max_new_tokens": new,
            "seed": some_seed(generator),
        }
        for v, b, t, new in sizes
    ]


def odd_prompts(generator: torch.Generator) -> list[Case]:
    nothing_new, one_new = prompts(generator)[:2]
    sure = prompts(generator)[2]  # one token is all but certain each time
    return [
        nothing_new | {"max_new_tokens": 0},
        one_new | {"max_new_tokens": 1},
        sure | {"tables": 1000 * sure["tables"]},
        one_new | {"max_new_tokens": 70},  # longer than a context that someone may have in mind
    ]


def observe_text(answer: Any, case: Case) -> Observation:
    model = Storyteller(case["tables"].clone())
    generator = seeded(case["seed"])
    with Draws(generator) as draws:
        result = attempt(lambda: answer(model, apart(case["idx"]), case["max_new_tokens"], generator))
    return {"result": result, "draws": draws.seen}


def observe_traces(answer: Any, case: Case) -> Observation:
    """What generating leaves behind, for a model in training, in eval and in mixed mode."""
    seen: Observation = {}
    states = RandomStates()
    for mode in ("training", "eval", "mixed"):
        model = Storyteller(case["tables"].clone()).train(mode != "eval")
        if mode == "mixed":
            model.dropout.eval()
        before = [module.training for module in model.modules()]
        idx = case["idx"].clone()
        made: list[Any] = []
        arguments = (idx, case["max_new_tokens"], seeded(case["seed"]))
        stopped = attempt(lambda m=model, a=arguments, out=made: out.append(answer(m, *a)))
        seen[f"shape_with_the_model_in_{mode}_mode"] = attempt(lambda out=made: list(out[0].shape)) if made else stopped
        seen[f"{mode}_mode_restored"] = before == [module.training for module in model.modules()]
        seen[f"model_unchanged_in_{mode}_mode"] = model.tables.requires_grad and identical(model.tables, case["tables"])
        seen[f"no_gradient_graph_in_{mode}_mode"] = not getattr((made or [None])[0], "requires_grad", False)
        seen[f"prompt_unchanged_in_{mode}_mode"] = identical(idx, case["idx"])
    return seen | states.unchanged()


# 5.5 ------------------------------------------------------------------------------------------------


def id_sequences(generator: torch.Generator) -> list[Case]:
    return [
        {"data": torch.tensor([0, 1, 0, 2, 0, 1]), "vocab_size": 3},
        {"data": torch.randint(4, (50,), generator=generator), "vocab_size": 4},
        {"data": torch.randint(5, (301,), generator=generator) // 2, "vocab_size": 5},  # ids 3, 4 never occur
    ]


def odd_id_sequences(generator: torch.Generator) -> list[Case]:
    return [
        {"data": torch.tensor([1, 1]), "vocab_size": 2},
        {"data": torch.randint(3, (2,), generator=generator), "vocab_size": 7},
        {"data": torch.randint(1, (9,), generator=generator), "vocab_size": 1},
        {"data": torch.randint(65, (1500,), generator=generator), "vocab_size": 65, "strided": True},
        {"data": torch.randint(40, (3000,), generator=generator) // 39, "vocab_size": 2},  # counts in the thousands
    ]


def observe_counts(answer: Any, case: Case) -> Observation:
    data, states = case["data"].clone(), RandomStates()
    first = attempt(lambda: answer(data, case["vocab_size"]))
    return {
        "result": first,
        "inputs_unchanged": identical(data, case["data"]),
        **states.unchanged(),
        "same_again": same([attempt(lambda: answer(data, case["vocab_size"]))], [first])
        if isinstance(first, Tensor)
        else True,
    }


# 5.6 ------------------------------------------------------------------------------------------------


class ChunkEncoding:
    """Stands in for a tiktoken encoding: one id per chunk of ``size`` characters.

    ``encode`` refuses special tokens as tiktoken's does, so only ``encode_ordinary`` works on any text.
    """

    def __init__(self, size: int):
        self.size = size

    def encode_ordinary(self, text: str) -> list[int]:
        """One id per chunk; equal chunks have equal ids."""
        chunks = [text[i : i + self.size] for i in range(0, len(text), self.size)]
        return [sum(map(ord, chunk)) for chunk in chunks]

    def encode(self, text: str) -> list[int]:
        """As tiktoken: special tokens in the text are an error."""
        if "<|endoftext|>" in text:
            raise ValueError("Encountered text corresponding to disallowed special token '<|endoftext|>'.")
        return self.encode_ordinary(text)


def encoded_texts(generator: torch.Generator) -> list[Case]:
    return [
        {"text": "to be, or not to be", "chunk": 3},
        {"text": some_text(generator, "abc de", 37), "chunk": 5},
        {"text": some_text(generator, "xyz", 12), "chunk": 4},
    ]


def odd_encoded_texts(generator: torch.Generator) -> list[Case]:
    return [
        {"text": "naïve café, 🙂 Ω", "chunk": 2},
        {"text": "one <|endoftext|> two" + some_text(generator, "ab", 5), "chunk": 4},
        {"text": "a", "chunk": 9},
        {"text": "\n" * 6, "chunk": 1},
    ]


def empty_texts(generator: torch.Generator) -> list[Case]:
    return [{"text": "", "chunk": 1}, {"text": "", "chunk": 3}]


def observe_ratio(answer: Any, case: Case) -> Observation:
    return {"result": attempt(lambda: answer(case["text"], ChunkEncoding(case["chunk"])))}


def observe_refusal(answer: Any, case: Case) -> Observation:
    return {"error": attempt(lambda: answer(case["text"], ChunkEncoding(case["chunk"])))}


PROBES = {
    "5.1": {
        "values": Probe(texts, observe_codec),
        "any_input": Probe(odd_texts, observe_odd_codec),
        "error": Probe(texts_with_strangers, observe_stranger),
    },
    "5.2": {
        "values": Probe(corpora, observe_batch),
        "uniform": Probe(corpora_for_many_draws, observe_many_draws),
        "manners": Probe(corpora_for_many_draws, observe_sources),
    },
    "5.3": {
        "table": Probe(tables, observe_table),
        "logits": Probe(precise_tables, observe_logits),
        "loss": Probe(precise_tables, observe_loss),
    },
    "5.4": {
        "values": Probe(prompts, observe_text),
        "any_input": Probe(odd_prompts, observe_text),
        "manners": Probe(prompts, observe_traces),
    },
    "5.5": {
        "values": Probe(id_sequences, plainly),
        "any_input": Probe(odd_id_sequences, plainly),
        "manners": Probe(id_sequences, observe_counts),
    },
    "5.6": {
        "values": Probe(encoded_texts, observe_ratio),
        "any_input": Probe(odd_encoded_texts, observe_ratio),
        "error": Probe(empty_texts, observe_refusal),
    },
}
