"""The gate has teeth: a mistake planted in a reference makes the tests, or a notebook's stored outputs, fail.

Each mistake is planted in a copy of the repository, and the gate that guards it runs there in a process of
its own. The same gates pass on an unchanged copy, so it is the mistake that they fail on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils.data import TINYSHAKESPEARE
from utils.fetching import fetch

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mistake:
    """Text of `utils/<module>.py` that occurs once, what to write instead, and the gate that must notice."""

    name: str
    module: str
    old: str
    new: str
    gate: str


NORMALIZERS = "tests/test_normalizers.py"
MASKING = "tests/test_masking.py"
ATTENTION = "tests/test_attention.py"
COSTS = "tests/test_costs.py"
BIGRAM = "tests/test_bigram.py"
GENERATION = "tests/test_generation.py"
TRAINING = "tests/test_training.py"
GPT = "tests/test_gpt.py"
HUB = "tests/test_hub.py"
CHECKPOINTS = "tests/test_checkpoints.py"
STARTUP = "tests/test_startup.py"
CHAPTER_1 = "notebooks/01_dot_product_attention.ipynb"

MISTAKES = [
    # Found by the stored outputs of a notebook
    Mistake(
        "weights normalised over the queries",
        "attention",
        "torch.softmax(attn_scores, dim=-1)\n\n\nclass SimpleSelfAttention",
        "torch.softmax(attn_scores, dim=-2)\n\n\nclass SimpleSelfAttention",
        CHAPTER_1,
    ),
    Mistake(
        "weights transposed",
        "attention",
        "return weights @ inputs",
        "return weights.transpose(-2, -1) @ inputs",
        ATTENTION,
    ),
    Mistake(
        "scores scaled where they should not be",
        "attention",
        "return inputs @ inputs.transpose(-2, -1)",
        "return inputs @ inputs.transpose(-2, -1) / inputs.shape[-1] ** 0.5",
        CHAPTER_1,
    ),
    # Found by the tests
    Mistake(
        "softmax over the wrong dimension",
        "normalizers",
        "torch.softmax(inputs, dim=-1)",
        "torch.softmax(inputs, dim=0)",
        NORMALIZERS,
    ),
    Mistake(
        "stable softmax without the largest score",
        "normalizers",
        "torch.exp(scores - scores.amax(dim=dim, keepdim=True))",
        "torch.exp(scores)",
        NORMALIZERS,
    ),
    Mistake(
        "stable softmax divides along the last dimension only",
        "normalizers",
        "exponentials.sum(dim=dim, keepdim=True)",
        "exponentials.sum(dim=-1, keepdim=True)",
        NORMALIZERS,
    ),
    Mistake("no scaling", "attention", "attn_scores / keys.shape[-1] ** 0.5", "attn_scores", ATTENTION),
    Mistake(
        "mask hides a token from itself",
        "masking",
        "dtype=torch.bool), diagonal=1)",
        "dtype=torch.bool), diagonal=0)",
        MASKING,
    ),
    Mistake(
        "means of the past divided by the whole length",
        "masking",
        "lower / lower.sum(dim=-1, keepdim=True)",
        "lower / num_tokens",
        MASKING,
    ),
    Mistake(
        "leaks from the second position overlooked",
        "masking",
        "for t in range(1, context_length):",
        "for t in range(2, context_length):",
        MASKING,
    ),
    Mistake("survivors not scaled", "masking", "weights * keep_mask / (1 - p)", "weights * keep_mask", MASKING),
    Mistake(
        "mask forgotten",
        "attention",
        "attn_scores = attn_scores.masked_fill(hidden, normalizer.mask_value)",
        "pass",
        ATTENTION,
    ),
    Mistake(
        "mask not cut to the sequence",
        "attention",
        "hidden = self.mask[held:num_tokens, :num_tokens]",
        "hidden = self.mask",
        ATTENTION,
    ),
    Mistake(
        "mask cut at its lower end",
        "attention",
        "self.mask[:num_tokens, :num_tokens]  # a short",
        "self.mask[-num_tokens:, :num_tokens]  # a short",
        ATTENTION,
    ),
    Mistake(
        "heads split by a bare view",
        "attention",
        "return x.transpose(-3, -2)  # (..., T, H, D)",
        "return x.reshape(*x.shape[:-3], num_heads, x.shape[-3], x.shape[-1])  # (..., T, H, D)",
        ATTENTION,
    ),
    Mistake(
        "output projection forgotten",
        "attention",
        "return self.out_proj(merge_heads(contexts))",
        "return merge_heads(contexts)",
        ATTENTION,
    ),
    Mistake(
        "dropout in eval mode too",
        "attention",
        "dropout(attn_weights)",
        "nn.functional.dropout(attn_weights, dropout.p, training=True)",
        ATTENTION,
    ),
    Mistake(
        "wrapper ignores qkv_bias",
        "attention",
        "context_length, dropout, qkv_bias, normalizer) for _",
        "context_length, dropout, False, normalizer) for _",
        ATTENTION,
    ),
    Mistake(
        "wrapper ignores the normalizer",
        "attention",
        "context_length, dropout, qkv_bias, normalizer) for _",
        "context_length, dropout, qkv_bias) for _",
        ATTENTION,
    ),
    Mistake(
        "fused attention looks at later tokens",
        "attention",
        "dropout_p=dropout_p, is_causal=True)",
        "dropout_p=dropout_p)",
        ATTENTION,
    ),
    Mistake(
        "fused attention drops in eval mode too",
        "attention",
        "self.dropout.p if self.training else 0.0",
        "self.dropout.p",
        ATTENTION,
    ),
    Mistake(
        "cache overwrites its last token", "attention", "self.length = end\n", "self.length = end - 1\n", ATTENTION
    ),
    Mistake(
        "reset forgets nothing",
        "attention",
        '"""Start a new sequence."""\n        self.cache = None',
        "pass",
        ATTENTION,
    ),
    Mistake("cache of keys only", "costs", "return 2 * cfg.n_layers", "return cfg.n_layers", COSTS),
    Mistake("tied head counted twice", "costs", "head = 0 if tied else", "head =", COSTS),
    Mistake("attention's products forward only", "costs", "6 * weights + 12 *", "6 * weights + 4 *", COSTS),
    Mistake(
        "cross-attention asks with the context",
        "attention",
        "attend(x @ W_query, context @ W_key, context @ W_value,",
        "attend(context @ W_query, x @ W_key, x @ W_value,",
        ATTENTION,
    ),
    Mistake(
        "rows and columns of the counts swapped",
        "bigram",
        "data[:-1].long() * vocab_size + data[1:]",
        "data[1:].long() * vocab_size + data[:-1]",
        BIGRAM,
    ),
    Mistake("no smoothing", "bigram", "counts.double() + 1", "counts.double()", BIGRAM),
    Mistake("prediction read at the first position", "generation", "logits[:, -1], ", "logits[:, 0], ", GENERATION),
    Mistake("only the last token is fed", "generation", "model(idx[:, -window:])", "model(idx[:, -1:])", GENERATION),
    Mistake(
        "draws from the global generator",
        "generation",
        "num_samples=1, generator=generator)",
        "num_samples=1)",
        GENERATION,
    ),
    Mistake("targets not shifted", "training", "data[positions + 1]", "data[positions]", TRAINING),
    Mistake(
        "last start never drawn",
        "training",
        "torch.randint(num_starts,",
        "torch.randint(max(num_starts - 1, 1),",
        TRAINING,
    ),
    Mistake(
        "every batch counts the same, whatever its size",
        "training",
        "total += loss.item() * y.numel()\n            num_tokens += y.numel()",
        "total += loss.item()\n            num_tokens += 1",
        TRAINING,
    ),
    Mistake("all modules end in training mode", "modes", "module.training = mode", "module.training = True", TRAINING),
    Mistake("gradients pile up", "training", "optimizer.zero_grad(set_to_none=True)", "pass", TRAINING),
    Mistake("split at 80 %", "data", "train_fraction: float = 0.9", "train_fraction: float = 0.8", TRAINING),
    Mistake("vocabulary not sorted", "tokenizers", "tuple(sorted(set(text)))", "tuple(dict.fromkeys(text))", TRAINING),
    Mistake("Colab's torch replaced", "startup", 'in ("torch", "numpy") if', 'in ("numpy",) if', STARTUP),
    Mistake("another utils stays", "startup", "        del sys.modules[name]", "        pass", STARTUP),
    # GPT-2, its weights, its training and its text
    Mistake("variance divided by d - 1", "gpt", "correction=0", "correction=1", GPT),
    Mistake("another GELU", "gpt", 'nn.GELU(approximate="tanh")', "nn.GELU()", GPT),
    Mistake(
        "normalised after the addition",
        "gpt",
        "x = x + self.drop(self.att(self.norm1(x), cache))",
        "x = self.norm1(x + self.drop(self.att(x, cache)))",
        GPT,
    ),
    Mistake(
        "positions start anew after each cached piece",
        "gpt",
        "torch.arange(start, start + num_tokens,",
        "torch.arange(num_tokens,",
        GPT,
    ),
    Mistake(
        "first weights as wide at the ends of the branches",
        "gpt",
        "std=cfg.init_std / math.sqrt(2 * cfg.n_layers)",
        "std=cfg.init_std",
        GPT,
    ),
    Mistake(
        "head tied to a copy",
        "gpt",
        "self.out_head.weight = self.tok_emb.weight",
        "self.out_head.weight = nn.Parameter(self.tok_emb.weight.detach().clone())",
        GPT,
    ),
    Mistake(
        "published queries taken for keys",
        "gpt",
        "projections = (block.att.W_query, block.att.W_key, block.att.W_value)",
        "projections = (block.att.W_key, block.att.W_query, block.att.W_value)",
        GPT,
    ),
    Mistake(
        "damaged download used", "hub", "return digest.hexdigest() == checksum", "return bool(digest.digest())", HUB
    ),
    Mistake(
        "scores not lowered by the largest",
        "training",
        "shifted = logits - logits.amax(dim=-1, keepdim=True)",
        "shifted = logits",
        TRAINING,
    ),
    Mistake(
        "warm-up one step ahead",
        "training",
        "max_lr * step / warmup_steps",
        "max_lr * (step + 1) / warmup_steps",
        TRAINING,
    ),
    Mistake("biases decay", "training", '"weight_decay": 0.0', '"weight_decay": weight_decay', TRAINING),
    Mistake(
        "a ragged part counts as a whole one",
        "training",
        "share = len(x_part) / len(x)",
        "share = 1 / len(parts)",
        TRAINING,
    ),
    Mistake("clipped while scaled up", "training", "scaler.unscale_(optimizer)", "pass", TRAINING),
    Mistake(
        "place among the likeliest taken for the token",
        "generation",
        "return drawn if ids is None else ids.gather(-1, drawn)",
        "return drawn",
        GENERATION,
    ),
    Mistake("window at the start of the text", "generation", "idx[:, -window:]", "idx[:, :window]", GENERATION),
    Mistake(
        "moments not restored", "checkpoints", 'optimizer.load_state_dict(saved["optimizer"])', "pass", CHECKPOINTS
    ),
    Mistake(
        "random state not restored",
        "checkpoints",
        "        for generator, state in pairs:\n            generator.set_state(state)\n",
        "",
        CHECKPOINTS,
    ),
    Mistake(
        "part of a checkpoint left behind", "checkpoints", "temporary.unlink(missing_ok=True)", "pass", CHECKPOINTS
    ),
]
TEST_FILES = sorted({mistake.gate for mistake in MISTAKES if mistake.gate.endswith(".py")})
NOTEBOOKS = sorted({mistake.gate for mistake in MISTAKES if mistake.gate.endswith(".ipynb")})

# Importing PyTorch and nbval takes longer than most gates, so one process imports them and then forks for each
# gate. Elsewhere than on Linux, forking is not safe, and each gate starts from nothing.
FORKING_SERVER = """
import os, subprocess, sys
forks = sys.platform == "linux"
if forks:
    import hypothesis, nbval.plugin, pytest, torch
    torch.testing.assert_close(1.0, 1.0)  # it and the first optimizer import much more
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    hypothesis.settings.register_profile("quick", max_examples=20)
    hypothesis.settings.load_profile("quick")
for line in sys.stdin:
    folder, log, *arguments = line.rstrip("\\n").split("\\t")
    with open(log, "wb") as output:
        if not forks:
            command = [sys.executable, "-m", "pytest", *arguments]
            code = subprocess.run(command, cwd=folder, stdout=output, stderr=output).returncode
        elif process := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        else:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(folder)
            code = pytest.main(arguments)
            sys.stdout.flush()
            os._exit(code)
    print(int(code), flush=True)
"""

RunGate = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def run_gate(tmp_path_factory) -> Iterator[RunGate]:
    """A function: folder of a copy, gates -> exit code and output of pytest."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Where this test itself runs under xdist, its variables must not reach the gate.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    server = subprocess.Popen(
        [sys.executable, "-c", FORKING_SERVER],
        cwd=tmp_path_factory.mktemp("server"),
        env=inherited | one_thread | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(folder: Path, *gates: str) -> tuple[int, str]:
        log = folder / "gate.log"
        arguments = ["-x", "-q", "--tb=short", "-o", "addopts=", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        if gates[0].endswith(".ipynb"):
            arguments += ["-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
        print(folder, log, *arguments, *gates, sep="\t", file=server.stdin, flush=True)
        answer = server.stdout.readline()
        return int(answer), log.read_text(encoding="utf-8", errors="replace")

    with server:
        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def copy_for(tmp_path_factory) -> Callable[..., Path]:
    """A function: gates -> folder of a new copy of all that the gates need."""
    corpus = fetch(TINYSHAKESPEARE)

    def copy(*gates: str) -> Path:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(REPOSITORY / "utils", folder / "utils", ignore=shutil.ignore_patterns("__pycache__"))
        files = ("pyproject.toml", "requirements.txt", "Makefile", "tests/conftest.py", *gates)
        for name in (*files, *(REPOSITORY / "data").glob("*.json")):
            source = REPOSITORY / name
            if source.exists():
                target = folder / source.relative_to(REPOSITORY)
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
        for name in ("data", "notebooks"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "data" / TINYSHAKESPEARE.name).write_bytes(corpus.content)
        return folder

    return copy


@pytest.mark.parametrize("gates", [TEST_FILES, *([notebook] for notebook in NOTEBOOKS)], ids=["tests", *NOTEBOOKS])
def test_gates_pass_without_a_mistake(gates, run_gate, copy_for):
    code, output = run_gate(copy_for(*gates), *gates)
    assert code == pytest.ExitCode.OK, output[-3000:]
    assert " passed" in output


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_gate_notices_a_mistake(mistake, run_gate, copy_for):
    folder = copy_for(mistake.gate)
    path = folder / "utils" / f"{mistake.module}.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(mistake.old) == 1, "the text to change must occur exactly once"
    changed = text.replace(mistake.old, mistake.new)
    compile(changed, path, "exec")  # a gate that stumbles over broken syntax proves nothing
    path.write_text(changed, encoding="utf-8")
    code, output = run_gate(folder, mistake.gate)
    assert code == pytest.ExitCode.TESTS_FAILED, output[-3000:]
    summary = output.strip().splitlines()[-1]
    assert " failed" in f" {summary}" and " error" not in summary, output[-3000:]
