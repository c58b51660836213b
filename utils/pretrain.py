"""Training the course's small GPT-2 on tinyshakespeare: the recipes, and one command that follows them.

    python -m utils.pretrain                                         # one process
    torchrun --nproc-per-node 2 -m utils.pretrain                    # two, on one machine or several
    python -m utils.pretrain --checkpoint run.pt --resume            # go on where a run stopped
    python -m utils.pretrain --recipe cpu --seed 0 --export          # the trained model that the chapters use

Legend: B batch, T tokens, N tokens of a corpus.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.data import load_tinyshakespeare, train_val_split
from utils.distributed import own_share, process_group, rank, spread
from utils.environment import autocast_dtype, pick_device, set_seed
from utils.fetching import DATA_FOLDER, shown
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.tokenizers import CharTokenizer
from utils.training import consecutive_batches, estimate_loss, get_batch, learning_rate, parameter_groups, train

TRAINED_FILE = DATA_FOLDER / "trained_gpt.safetensors"
BAND_FILE = DATA_FOLDER / "pretraining_band.json"
SPEED_FILE = DATA_FOLDER / "speed.json"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training run goes, but for the seed and the device.

    Attributes:
        config: the model.
        batch_size: rows per step, over all processes.
        num_steps: updates.
        max_lr, min_lr, warmup_steps: of the schedule in ``utils.training.learning_rate``.
        weight_decay: for matrices and embeddings.
        betas: how long AdamW remembers gradients and their squares.
        max_grad_norm: longer gradients are scaled down to this length.
    """

    config: GPTConfig
    batch_size: int
    num_steps: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float = 1.0

    def schedule(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(step, self.max_lr, self.min_lr, self.warmup_steps, self.num_steps)

    def build(self, device: torch.device | str = "cpu") -> tuple[GPTModel, torch.optim.AdamW]:
        """A fresh model, from PyTorch's global generator, and its optimizer."""
        model = GPTModel(self.config).to(device)
        groups = parameter_groups(model, self.weight_decay)
        return model, torch.optim.AdamW(groups, lr=self.max_lr, betas=self.betas, fused=True)


RECIPES: dict[str, Recipe] = {
    # For two CPU cores and two minutes. Chapter 7 tells how each choice was made.
    "cpu": Recipe(
        GPTConfig(65, context_length=64, emb_dim=96, n_heads=3, n_layers=2, drop_rate=0.0, init_std=None),
        batch_size=12,
        num_steps=5300,
        max_lr=4e-3,
        min_lr=0.0,
        warmup_steps=100,
        weight_decay=0.3,
    ),
    # For a GPU and some minutes: the sizes of nanoGPT's example for this corpus.
    "gpu": Recipe(
        GPTConfig(65, context_length=256, emb_dim=384, n_heads=6, n_layers=6, drop_rate=0.2, qkv_bias=True),
        batch_size=64,
        num_steps=5000,
        max_lr=1e-3,
        min_lr=1e-4,
        warmup_steps=100,
    ),
}


def pick_recipe(device: torch.device) -> Recipe:
    """The recipe for a device: the small one for a CPU.

    Example:
        >>> pick_recipe(torch.device("cpu")).config.n_layers
        2
    """
    return RECIPES["cpu" if device.type == "cpu" else "gpu"]


def load_corpus() -> tuple[Tensor, Tensor, CharTokenizer]:
    """Tinyshakespeare as ids: the first 90 % to train on, the rest to validate, and the tokenizer.

    Example:
        >>> train_data, val_data, tokenizer = load_corpus()
        >>> len(train_data), len(val_data), tokenizer.vocab_size
        (1003854, 111540, 65)
    """
    text = load_tinyshakespeare()
    tokenizer = CharTokenizer(text)
    return *train_val_split(torch.tensor(tokenizer.encode(text))), tokenizer


def validation_loss(model: GPTModel, data: Tensor, rows: int = 64) -> float:
    """Mean loss over every token of a text, in blocks of the model's context length.

    Example:
        >>> cfg = GPTConfig(5, context_length=4, emb_dim=4, n_heads=1, n_layers=1)
        >>> 0 < validation_loss(GPTModel(cfg), torch.arange(20) % 5) < 5
        True
    """
    device = model.tok_emb.weight.device
    batches = consecutive_batches(data, model.cfg.context_length, rows)
    return estimate_loss(model, ((x.to(device), y.to(device)) for x, y in batches))


def export(model: GPTModel, path: str | Path, facts: dict[str, str]) -> None:
    """Write a model's weights in half precision, without buffers, and where they come from."""
    from safetensors.torch import save_file

    weights = {name: parameter.detach().half().contiguous() for name, parameter in model.named_parameters()}
    save_file(weights, path, metadata=facts)


def load_band() -> dict:
    """What ``make bench`` measured for the CPU recipe: losses of several seeds, the ladder to it, machine and date.

    Example:
        >>> len(load_band()["losses"]) >= 5
        True
    """
    return json.loads(BAND_FILE.read_text(encoding="utf-8"))


def load_speed() -> dict:
    """What ``make bench`` measured of the levers in chapter 8: ratios, machine and date.

    Example:
        >>> load_speed()["generation"]["no cache"] > 1
        True
    """
    return json.loads(SPEED_FILE.read_text(encoding="utf-8"))


def load_trained() -> GPTModel:
    """The model of the CPU recipe, trained once (seed 0) and kept in ``data/``: the same text everywhere.

    Example:
        >>> load_trained().cfg.n_layers
        2
    """
    from safetensors.torch import load_file

    model = GPTModel(RECIPES["cpu"].config)
    # buffers (the masks) are not in the file; every parameter must be
    missing, unexpected = model.load_state_dict(load_file(TRAINED_FILE), strict=False)
    if unexpected or set(missing) & {name for name, _ in model.named_parameters()}:
        raise ValueError(f"{shown(TRAINED_FILE)} belongs to another recipe; make it anew with --export")
    return model.eval()


def pretrain(
    recipe: Recipe,
    train_data: Tensor,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: str | Path | None = None,
    every: int = 250,
    resume: bool = False,
    after_step: Callable[[GPTModel, int], None] | None = None,
    decimals: int = 1,
) -> tuple[GPTModel, list[float]]:
    """Follow a recipe, alone or as one of the processes of ``torchrun``.

    Args:
        recipe: what to do.
        train_data: (N,) ids.
        seed: of the weights and, by another generator, of the batches.
        device: where the model lives.
        checkpoint: a file to write every ``every`` steps and at the end.
        every: steps between two checkpoints.
        resume: go on from the checkpoint, if the file exists; the run then ends as if it had never stopped.
        after_step: called as after_step(model, steps done).
        decimals: of the loss in the last line.

    Returns:
        the model, and the loss of each step made now.

    Raises:
        FileExistsError: there is a checkpoint, and ``resume`` is not set.
        ValueError: the corpus is shorter than a block, the loss is not finite, the batch can't be shared out
            evenly among the processes, or the checkpoint belongs to another recipe.

    Example:
        >>> recipe = replace(RECIPES["cpu"], num_steps=1)
        >>> model, losses = pretrain(recipe, torch.arange(1000) % 65)
        1 steps done, loss of the last batch 4.3
    """
    if checkpoint is not None and not resume and Path(checkpoint).exists():
        raise FileExistsError(f"{checkpoint} holds a run already: go on with resume, or name another file")
    set_seed(seed)
    model, optimizer = recipe.build(device)
    draws = torch.Generator().manual_seed(seed + 1)
    first_step = 0
    if resume and checkpoint is not None and Path(checkpoint).exists():
        first_step = load_checkpoint(checkpoint, model, optimizer, [draws])

    def next_batch() -> tuple[Tensor, Tensor]:
        x, y = get_batch(train_data, recipe.config.context_length, recipe.batch_size, draws)
        x, y = own_share(x, y)
        return x.to(device), y.to(device)

    def keep(done: int) -> None:
        if checkpoint is not None and rank() == 0 and (done % every == 0 or done == recipe.num_steps):
            save_checkpoint(checkpoint, model, optimizer, done, [draws])
        if after_step is not None:
            after_step(model, done)

    losses = train(
        spread(model),
        optimizer,
        next_batch,
        recipe.num_steps,
        decimals,
        first_step=first_step,
        schedule=recipe.schedule,
        max_grad_norm=recipe.max_grad_norm,
        autocast_dtype=autocast_dtype(torch.device(device)),
        after_step=keep,
    )
    return model, losses


def main(arguments: list[str] | None = None) -> None:
    """The command line: train, print the loss on the whole validation text."""
    parser = argparse.ArgumentParser(prog="python -m utils.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, help="cpu or gpu; by default the one for this machine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="other number of steps than the recipe's")
    parser.add_argument("--checkpoint", type=Path, help="file to keep the run in")
    parser.add_argument("--every", type=int, default=250, help="steps between two checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--losses", type=Path, help="write the loss of every step here, one a line")
    parser.add_argument("--export", action="store_true", help=f"keep the weights in {shown(TRAINED_FILE)}")
    options = parser.parse_args(arguments)
    if options.resume and options.checkpoint is None:
        parser.error("--resume needs --checkpoint")
    with process_group() as own_device:
        device = own_device or pick_device()
        recipe_name = options.recipe or ("cpu" if device.type == "cpu" else "gpu")
        recipe = RECIPES[recipe_name]
        if options.steps is not None:
            recipe = replace(recipe, num_steps=options.steps)
        train_data, val_data, _ = load_corpus()
        run = partial(pretrain, recipe, train_data, options.seed, device, options.checkpoint, options.every)
        model, losses = run(options.resume, decimals=4)
        if rank() == 0:
            if options.losses:
                options.losses.write_text("".join(f"{loss!r}\n" for loss in losses), encoding="utf-8")
            val_loss = validation_loss(model, val_data)
            print(f"validation loss {val_loss:.4f}")
            if options.export:
                facts = {
                    "command": f"python -m utils.pretrain --recipe {recipe_name} --seed {options.seed} --export",
                    "validation_loss": f"{val_loss:.4f}",
                    "torch": torch.__version__.partition("+")[0],
                }
                export(model, TRAINED_FILE, facts)


if __name__ == "__main__":
    main()
