"""Measurements behind the course's promises: ``make bench``.

What is compared is measured in turns within one run, so that a machine's moods strike all sides alike, and
reported as a ratio of medians. The band of chapter 7 is several seeds of its recipe.

    python -m utils.bench                # everything, about 25 minutes on two cores
    python -m utils.bench --only speed   # without the band
    python -m utils.bench --save         # and keep what was found in data/, where the notebooks read it
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from statistics import mean, median

import torch
from tqdm import tqdm

from utils.costs import kv_cache_bytes
from utils.fetching import shown
from utils.generation import generate
from utils.gpt import GPTModel, load_gpt2_weights
from utils.gpt_config import PRESETS, GPTConfig
from utils.pretrain import BAND_FILE, RECIPES, SPEED_FILE, Recipe, load_corpus, pretrain, validation_loss
from utils.training import estimate_loss, get_batch

# nanoGPT's published recipe for a CPU: its shape, batch, steps and loss, and the batches that it evaluates on the way
# (9 times 20 of either text).
YARDSTICK = GPTConfig(65, context_length=64, emb_dim=128, n_heads=4, n_layers=4, drop_rate=0.0)
YARDSTICK_BATCH, YARDSTICK_STEPS, YARDSTICK_LOSS = 12, 2000, 1.88
YARDSTICK_EVALUATIONS = 9 * 2 * 20
BAND_SEEDS = 5


def in_turns(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, all tasks run once per round; one more round before is not counted.

    Example:
        >>> sorted(in_turns({"a": lambda: None, "b": lambda: None}, rounds=3))
        ['a', 'b']
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in tqdm(range(rounds + 1), desc=" / ".join(tasks), leave=False):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in seconds.items()}


def transformers_twin(model: GPTModel) -> torch.nn.Module:
    """The same GPT-2 in the ``transformers`` library, with the same weights."""
    import transformers

    cfg = model.cfg
    config = transformers.GPT2Config(
        vocab_size=cfg.vocab_size, n_positions=cfg.context_length, n_embd=cfg.emb_dim, n_layer=cfg.n_layers,
        n_head=cfg.n_heads, resid_pdrop=cfg.drop_rate, embd_pdrop=cfg.drop_rate, attn_pdrop=cfg.drop_rate,
        tie_word_embeddings=cfg.tied, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    twin = transformers.GPT2LMHeadModel(config)
    load_gpt2_weights(model, twin.state_dict())
    return twin


def training_step(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, ours: bool = True, dtype: torch.dtype | None = None
) -> Callable[[], None]:
    """One whole step: forward, loss, backward, AdamW. Both libraries' models get the same fused optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            # transformers shifts the targets itself, so it is given the inputs: one answer less per row
            loss = model(x, y)[1] if ours else model(x, labels=x).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def compare_training(
    name: str, cfg: GPTConfig, batch_size: int, num_tokens: int, rounds: int, levers: bool = False
) -> dict[str, float]:
    """How many times as fast as other ways a training step is here.

    Args:
        name: of the shape, for the report.
        cfg, batch_size, num_tokens: the shape.
        rounds: how often each is measured.
        levers: also try chapter 8's: written-out attention, bfloat16, and the compiler where there is one.

    Returns:
        "transformers" -> its time divided by ours; with ``levers``, lever -> our plain time divided by its time.
    """
    torch.manual_seed(0)
    x, y = torch.randint(cfg.vocab_size, (2, batch_size, num_tokens))
    model = GPTModel(cfg)

    def twin(fused: bool = True) -> GPTModel:
        made = GPTModel(replace(cfg, fused=fused))
        made.load_state_dict(model.state_dict())
        return made

    tasks = {"transformers": training_step(transformers_twin(model), x, y, ours=False)}
    if levers:
        tasks["written-out attention"] = training_step(twin(fused=False), x, y)
        tasks["bfloat16"] = training_step(twin(), x, y, dtype=torch.bfloat16)
        if any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
            tasks["torch.compile"] = training_step(torch.compile(twin()), x, y)
    seconds = in_turns({"ours": training_step(model, x, y)} | tasks, rounds)
    print(f"Training step, {name} ({batch_size} x {num_tokens} tokens): ours {1000 * seconds['ours']:.1f} ms")
    print(f"  {seconds['transformers'] / seconds['ours']:.2f} x as fast as transformers")
    ratios = {"transformers": round(seconds["transformers"] / seconds["ours"], 2)}
    for lever in list(tasks)[1:]:
        ratios[lever] = round(seconds["ours"] / seconds[lever], 2)
        print(f"  with {lever}: {ratios[lever]:.2f} x as fast as plain float32 with the fused kernel")
    return ratios


def weight_readers(model: GPTModel) -> dict[str, Callable[[], object]]:
    """Two ways to read every weight that a token needs once, and to do next to nothing with it.

    The faster one is what memory allows: the same bytes, lying in the same places.
    """
    weights = [weight for name, weight in model.named_parameters() if name != "pos_emb.weight"]
    matrices = [(weight, torch.ones(weight.shape[1])) for weight in weights if weight.dim() == 2]
    return {
        "sums": lambda: [weight.sum() for weight in weights],
        "products": lambda: [matrix @ vector for matrix, vector in matrices],
    }


@torch.no_grad()
def compare_generation(cfg: GPTConfig, prompt_length: int = 8, num_new: int = 96, rounds: int = 5) -> dict[str, float]:
    """Print the speed of greedy generation: ours, ``transformers``, without a cache, and what memory allows."""
    torch.manual_seed(0)
    model = GPTModel(cfg).eval()
    twin = transformers_twin(model).eval()
    prompt = torch.randint(cfg.vocab_size, (1, prompt_length))
    twin.generation_config.pad_token_id = 0

    def theirs() -> torch.Tensor:
        return twin.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=num_new, do_sample=False, use_cache=True
        )

    def ours(cached: bool = True) -> torch.Tensor:
        return generate(model, prompt, num_new, temperature=0, cached=cached)

    if not torch.equal(ours(), theirs()):
        raise RuntimeError("both libraries should have written the same tokens")
    readers = weight_readers(model)
    seconds = in_turns({"ours": ours, "transformers": theirs} | readers, rounds)
    uncached = in_turns({"cached": ours, "no cache": lambda: ours(cached=False)}, 1)
    # each token reads every weight once (but one row of the table of positions), and the keys and values so far
    weights = sum(p.nbytes for p in model.parameters()) - model.pos_emb.weight.nbytes
    reading = min(seconds[name] for name in readers)
    least = num_new * reading * (1 + kv_cache_bytes(cfg, 1, prompt_length + num_new // 2, 4) / weights)
    print(f"Generation, {prompt_length} + {num_new} tokens, batch of one")
    print(
        f"  ours {num_new / seconds['ours']:.1f} tokens/s, transformers {num_new / seconds['transformers']:.1f}: "
        f"{seconds['transformers'] / seconds['ours']:.2f} x as fast"
    )
    print(f"  key-value cache: {uncached['no cache'] / uncached['cached']:.1f} x as fast as without")
    print(
        f"  memory delivers the weights at {weights / reading / 1e9:.1f} GB/s, which allows "
        f"{num_new / least:.1f} tokens/s: {least / seconds['ours']:.0%} of the limit reached"
    )
    return {
        "transformers": round(seconds["transformers"] / seconds["ours"], 2),
        "no cache": round(uncached["no cache"] / uncached["cached"], 1),
        "of the bandwidth limit": round(least / seconds["ours"], 2),
    }


def ladder() -> list[tuple[str, str, Recipe]]:
    """The way from nanoGPT's recipe to ours, one change a rung, each within the same processor time."""
    ours = RECIPES["cpu"]
    yardstick = Recipe(YARDSTICK, YARDSTICK_BATCH, YARDSTICK_STEPS, max_lr=1e-3, min_lr=1e-4, warmup_steps=100)
    faster = replace(yardstick, max_lr=ours.max_lr, min_lr=ours.min_lr)
    shape = replace(ours.config, init_std=YARDSTICK.init_std)
    smaller = replace(faster, config=shape, num_steps=ours.num_steps)
    return [
        ("nanoGPT's\nrecipe", "4 layers, learning rate 0.001 to 0.0001", yardstick),
        ("learning\nrate", f"the same model, learning rate {ours.max_lr} to {ours.min_lr:g}", faster),
        (
            "smaller\nmodel",
            f"{shape.n_layers} layers of {shape.emb_dim} channels, and so {ours.num_steps} steps",
            smaller,
        ),
        (
            "initial\nweights",
            "initial weights that fit the width",
            replace(ours, weight_decay=yardstick.weight_decay),
        ),
        ("weight\ndecay", f"weight decay {ours.weight_decay} instead of {yardstick.weight_decay}", ours),
    ]


def cpu_seconds_per_step(recipe: Recipe, steps: int = 60) -> float:
    """Processor seconds of one training step, the batch included."""
    train_data, _, _ = load_corpus()
    start = time.process_time()
    pretrain(replace(recipe, num_steps=steps), train_data)
    return (time.process_time() - start) / steps


def cpu_seconds_per_evaluation(recipe: Recipe, batches: int = 60) -> float:
    """Processor seconds of one batch that is only looked at."""
    train_data, _, _ = load_corpus()
    model, _ = recipe.build()
    draws, block = torch.Generator().manual_seed(0), recipe.config.context_length
    start = time.process_time()
    estimate_loss(model, (get_batch(train_data, block, recipe.batch_size, draws) for _ in range(batches)))
    return (time.process_time() - start) / batches


def compare_costs(rounds: int = 7) -> dict[str, int]:
    """Processor seconds that nanoGPT's recipe takes with our code, its evaluations included, and that ours takes."""
    yardstick, ours = ladder()[0][2], RECIPES["cpu"]
    # in turns, so that a slow moment of the machine strikes all
    costs = [
        (cpu_seconds_per_step(yardstick), cpu_seconds_per_evaluation(yardstick), cpu_seconds_per_step(ours))
        for _ in range(rounds + 1)
    ]
    step, evaluation, own_step = (median(column) for column in zip(*costs[1:], strict=True))
    return {
        "budget_seconds": round(yardstick.num_steps * step + YARDSTICK_EVALUATIONS * evaluation),
        "needed_seconds": round(ours.num_steps * own_step),
    }


def _loss_and_seconds(recipe: Recipe, seed: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    train_data, val_data, _ = load_corpus()
    start = time.process_time()
    model, _ = pretrain(recipe, train_data, seed)
    seconds = time.process_time() - start
    return round(validation_loss(model, val_data), 4), seconds


def measure_band(jobs: int) -> dict:
    """Train the CPU recipe with several seeds, and each rung of the ladder once, one thread each."""
    torch.set_num_threads(1)
    load_corpus()  # it is there before the processes ask for it
    rungs = ladder()
    recipe = rungs[-1][2]
    costs = compare_costs()
    work = [(recipe, seed) for seed in range(BAND_SEEDS)] + [(rung, 0) for _, _, rung in rungs[:-1]]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = list(tqdm(pool.map(_loss_and_seconds, *zip(*work, strict=True)), total=len(work), desc="runs"))
    losses = [loss for loss, _ in runs[:BAND_SEEDS]]
    rung_losses = [loss for loss, _ in runs[BAND_SEEDS:]] + losses[:1]
    return {
        "losses": losses,
        "mean": round(mean(losses), 4),
        "steps": recipe.num_steps,
        "seconds_per_run": round(mean(seconds for _, seconds in runs[:BAND_SEEDS])),
        **costs,
        "ladder": [
            {"name": name, "why": why, "loss": loss} for (name, why, _), loss in zip(rungs, rung_losses, strict=True)
        ],
        **circumstances(),
    }


def circumstances() -> dict[str, str]:
    """Where and when something was measured."""
    return {
        "machine": f"{os.cpu_count()} cores",
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.date.today().isoformat(),
    }


def print_band(band: dict) -> None:
    """Say what ``measure_band`` found."""
    for rung in band["ladder"]:
        print(f"  {rung['loss']:.3f}  {rung['why']}")
    print(f"Chapter 7's recipe, {len(band['losses'])} seeds: validation loss {band['mean']:.3f}, "
          f"{min(band['losses']):.3f} to {max(band['losses']):.3f}")  # fmt: skip
    print(
        f"  {band['needed_seconds']} s of one core; nanoGPT's CPU recipe (loss {YARDSTICK_LOSS}) takes "
        f"{band['budget_seconds']} s with the same code ({YARDSTICK_STEPS} steps of its shape and its evaluations)"
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m utils.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("speed", "band"), help="half of it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds trained at the same time")
    parser.add_argument("--save", action="store_true", help=f"keep it in {shown(BAND_FILE)} and {shown(SPEED_FILE)}")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads", flush=True)
    if options.only != "band":
        large = replace(PRESETS["gpt2"], drop_rate=0.0)
        speed = {
            "small": compare_training("small shape", YARDSTICK, YARDSTICK_BATCH, 64, rounds=40, levers=True),
            "large": compare_training("124M parameters", large, batch_size=2, num_tokens=128, rounds=5),
            "generation": compare_generation(large),
            **circumstances(),
        }
        if options.save:
            SPEED_FILE.write_text(json.dumps(speed, indent=1) + "\n", encoding="utf-8")
    if options.only != "speed":
        band = measure_band(options.jobs)
        print_band(band)
        if options.save:
            BAND_FILE.write_text(json.dumps(band, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
