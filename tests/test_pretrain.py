"""The recipes, a run that follows one, the stored model and what was measured about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from utils import pretrain as module
from utils.environment import autocast_dtype
from utils.gpt_config import GPTConfig
from utils.pretrain import (
    RECIPES,
    TRAINED_FILE,
    Recipe,
    export,
    load_band,
    load_corpus,
    load_speed,
    load_trained,
    pick_recipe,
    pretrain,
    validation_loss,
)
from utils.training import get_batch

TINY = Recipe(
    GPTConfig(7, context_length=6, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.1),
    batch_size=4, num_steps=12, max_lr=1e-2, min_lr=1e-3, warmup_steps=3,
)  # fmt: skip
DATA = torch.arange(200) * 5 % 7


# Which recipe, which precision


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda", "gpu"), ("mps", "gpu")])
def test_a_gpu_gets_the_larger_recipe(device: str, name: str):
    assert pick_recipe(torch.device(device)) is RECIPES[name]


def test_the_gpu_recipe_has_the_published_sizes():
    cfg = RECIPES["gpu"].config
    sizes = (cfg.n_layers, cfg.n_heads, cfg.emb_dim, cfg.context_length, cfg.drop_rate)
    assert sizes == (6, 6, 384, 256, 0.2)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpus_compute_in_the_half_precision_that_they_have(monkeypatch, has_bf16: bool, expected: torch.dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    assert autocast_dtype(torch.device("cuda")) is expected


def test_other_devices_stay_in_float32():
    assert autocast_dtype(torch.device("cpu")) is None and autocast_dtype(torch.device("mps")) is None


def test_schedule_ends_at_the_lowest_rate():
    assert [TINY.schedule(step) for step in (0, 3, 12)] == pytest.approx([0, 1e-2, 1e-3])


def test_optimizer_decays_matrices_only():
    model, optimizer = TINY.build()
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


# A run


def test_a_run_learns_and_repeats_itself():
    model, losses = pretrain(TINY, DATA, seed=3)
    _, again = pretrain(TINY, DATA, seed=3)
    _, other = pretrain(TINY, DATA, seed=4)
    assert losses == again != other
    assert losses[-1] < losses[0] and validation_loss(model, DATA) < losses[0]


def test_batches_depend_on_the_seed_and_on_nothing_else(monkeypatch):
    drawn = []

    def note(*arguments):
        drawn.append(get_batch(*arguments)[0])
        return get_batch(*arguments)

    monkeypatch.setattr(module, "get_batch", note)
    for width in (8, 16):  # a wider model draws more numbers for its weights
        pretrain(replace(TINY, num_steps=1, config=replace(TINY.config, emb_dim=width)), torch.arange(200) % 7)
    assert torch.equal(drawn[0], drawn[1])


def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path):
    path = tmp_path / "run.pt"
    whole_model, whole = pretrain(TINY, DATA)

    class Killed(Exception):
        pass

    def kill(model, done):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        pretrain(TINY, DATA, checkpoint=path, every=5, after_step=kill)
    model, rest = pretrain(TINY, DATA, checkpoint=path, every=5, resume=True)
    assert rest == whole[5:]  # the last checkpoint was written after step 5
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole_model.parameters(), strict=True))
    _, nothing = pretrain(TINY, DATA, checkpoint=path, resume=True)
    assert nothing == []


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path):
    _, losses = pretrain(TINY, DATA, checkpoint=tmp_path / "run.pt", resume=True)
    assert len(losses) == 12


def test_an_older_run_is_not_overwritten_by_accident(tmp_path: Path):
    path = tmp_path / "run.pt"
    pretrain(TINY, DATA, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"run\.pt"):
        pretrain(TINY, DATA, checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path):
    path = tmp_path / "run.pt"
    pretrain(TINY, DATA, checkpoint=path)
    wider = replace(TINY, config=replace(TINY.config, emb_dim=16))
    with pytest.raises(ValueError, match="emb_dim"):
        pretrain(wider, DATA, checkpoint=path, resume=True)


def test_a_corpus_shorter_than_a_block_is_refused():
    with pytest.raises(ValueError, match="block of 6"):
        pretrain(TINY, DATA[:6])


def test_validation_counts_every_token_once():
    """Against one pass over each block by hand, the short last one included."""
    model, _ = TINY.build()
    model.eval()
    text = DATA[:27]  # 26 targets: four blocks of 6 and one of 2
    total = 0.0
    for start in range(0, 26, 6):
        x, y = text[start : start + 6][: 26 - start], text[start + 1 : start + 7]
        total += model(x[None], y[None])[1].item() * len(y)
    assert validation_loss(model, text, rows=3) == pytest.approx(total / 26, abs=1e-6)


# The command line


def test_command_line_trains_logs_and_resumes(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "cpu", replace(TINY, config=replace(TINY.config, vocab_size=65), num_steps=4))
    monkeypatch.setattr(module, "load_corpus", lambda: (torch.arange(300) % 65, torch.arange(100) % 65, None))
    checkpoint, log = tmp_path / "run.pt", tmp_path / "losses.txt"
    arguments = ["--recipe", "cpu", "--checkpoint", str(checkpoint), "--losses", str(log)]
    module.main(arguments)
    assert re.search(r"^validation loss \d\.\d{4}$", capsys.readouterr().out, re.M)
    assert len([float(line) for line in log.read_text().splitlines()]) == 4
    module.main([*arguments, "--resume"])
    assert "validation loss" in capsys.readouterr().out


def test_command_line_wants_a_checkpoint_to_resume_from(capsys):
    with pytest.raises(SystemExit):
        module.main(["--resume"])
    assert "--checkpoint" in capsys.readouterr().err


# The stored model and the band


@pytest.mark.usefixtures("one_thread")
def test_stored_model_is_what_it_says_it_is():
    """Its size, its origin, and the validation loss that it had before it was rounded to half precision."""
    assert TRAINED_FILE.stat().st_size < 1_000_000
    with safe_open(TRAINED_FILE, "pt") as stored:
        facts = stored.metadata()
    assert facts["command"] == "python -m utils.pretrain --recipe cpu --seed 0 --export"
    _, val_data, _ = load_corpus()
    loss = validation_loss(load_trained(), val_data)
    assert loss == pytest.approx(float(facts["validation_loss"]), abs=2e-3)
    assert float(facts["validation_loss"]) == pytest.approx(load_band()["losses"][0], abs=5e-3)


def test_export_keeps_the_weights_to_half_precision(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(RECIPES, "cpu", TINY)
    monkeypatch.setattr(module, "TRAINED_FILE", tmp_path / "model.safetensors")
    model, _ = TINY.build()
    export(model, module.TRAINED_FILE, {"command": "a test"})
    loaded = load_trained()
    assert not loaded.training
    for ours, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours.half().float(), theirs)


def test_a_stored_model_of_another_recipe_is_refused(tmp_path: Path, monkeypatch):
    deeper = replace(TINY, config=replace(TINY.config, n_layers=2))
    monkeypatch.setattr(module, "TRAINED_FILE", tmp_path / "model.safetensors")
    for saved, loaded in ((TINY, deeper), (deeper, TINY)):
        export(saved.build()[0], module.TRAINED_FILE, {})
        monkeypatch.setitem(RECIPES, "cpu", loaded)
        with pytest.raises(ValueError, match="--export"):
            load_trained()


def test_what_was_measured_keeps_the_promise():
    band = load_band()
    assert len(band["losses"]) >= 5
    assert band["mean"] <= 1.62 and max(band["losses"]) <= 1.62
    assert band["mean"] == pytest.approx(sum(band["losses"]) / len(band["losses"]), abs=1e-4)
    assert band["needed_seconds"] <= band["budget_seconds"], "not more processor time than nanoGPT's recipe"
    assert band["steps"] == RECIPES["cpu"].num_steps, "measured for another recipe"
    assert [rung["loss"] for rung in band["ladder"]] == sorted((r["loss"] for r in band["ladder"]), reverse=True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", band["date"]) and "cores" in band["machine"]


def test_speed_was_measured_and_keeps_the_promise():
    speed = load_speed()
    assert speed["small"]["transformers"] >= 1.2 and speed["large"]["transformers"] >= 1.0
    assert speed["generation"]["transformers"] >= 1.05
    assert speed["generation"]["no cache"] >= 3 and speed["generation"]["of the bandwidth limit"] >= 0.75
