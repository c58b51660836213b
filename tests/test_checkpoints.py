"""Checkpoints: a resumed run is the uninterrupted one; what is damaged or foreign is refused and changes nothing."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.training import get_batch, learning_rate, parameter_groups, train

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = {"vocab_size": 11, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2, "drop_rate": 0.3}
CORPUS = torch.randint(11, (300,), generator=torch.Generator().manual_seed(0))


class Run:
    """A model with dropout, its optimizer, and a generator that draws the batches."""

    def __init__(self, seed: int, make: Callable = torch.optim.AdamW, **changes: object) -> None:
        torch.manual_seed(seed)
        self.model = GPTModel(GPTConfig(**SIZES | changes))
        self.optimizer = make(parameter_groups(self.model, 0.1), lr=1e-2)
        self.generator = torch.Generator().manual_seed(seed)

    def train(self, first_step: int, num_steps: int) -> list[float]:
        return train(
            self.model,
            self.optimizer,
            partial(get_batch, CORPUS, 8, 4, self.generator),
            num_steps,
            first_step=first_step,
            schedule=partial(learning_rate, max_lr=1e-2, min_lr=1e-3, warmup_steps=3, max_steps=12),
            max_grad_norm=1.0,
            micro_batch_size=3,
        )

    def save(self, path: Path | str, step: int = 5) -> None:
        save_checkpoint(path, self.model, self.optimizer, step, [self.generator])

    def load(self, path: Path | str) -> int:
        return load_checkpoint(path, self.model, self.optimizer, [self.generator])

    def state(self) -> list:
        """Everything that a checkpoint touches, copied."""
        states = [self.model.state_dict(), self.optimizer.state_dict()]
        return [*map(copy.deepcopy, states), torch.get_rng_state(), self.generator.get_state()]


def assert_same(actual: object, expected: object) -> None:
    """Equal to the last bit, at any depth."""
    if isinstance(expected, Tensor):
        assert torch.equal(actual, expected)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_same(*pair)
    else:
        assert actual == expected


def assert_refused(run: Run, path: Path, message: str, load: Callable | None = None) -> None:
    before = run.state()
    with pytest.raises(ValueError, match=message):
        (load or run.load)(path)
    assert_same(run.state(), before)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run.pt"


@pytest.fixture
def saved(path) -> Path:
    """The checkpoint of a run after 5 steps."""
    run = Run(seed=1)
    run.train(0, 5)
    run.save(path)
    return path


# Going on


@pytest.mark.parametrize(
    "make",
    [torch.optim.AdamW, partial(torch.optim.AdamW, fused=True), partial(torch.optim.SGD, momentum=0.9)],
    ids=["adamw", "adamw-fused", "sgd-momentum"],
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tied, make, path):
    whole = Run(1, make, tied=tied)
    losses = whole.train(0, 12)
    assert len(set(losses)) == 12
    first = Run(1, make, tied=tied)
    assert first.train(0, 5) == losses[:5]
    first.save(path, step=5)
    resumed = Run(2, make, tied=tied)
    assert resumed.load(path) == 5
    assert (resumed.model.out_head.weight is resumed.model.tok_emb.weight) is tied
    assert resumed.train(5, 12) == losses[5:]
    assert_same(resumed.state(), whole.state())


def test_saving_changes_nothing(path):
    run = Run(seed=1)
    run.train(0, 3)
    before = run.state()
    run.save(path)
    assert_same(run.state(), before)


def test_what_is_loaded_does_not_hang_on_the_file(saved):
    runs = [Run(2), Run(3)]
    for run in runs:
        run.load(saved)
    runs[0].train(5, 8)
    fresh = Run(4)
    fresh.load(saved)
    assert_same(runs[1].state()[:2], fresh.state()[:2])


@pytest.mark.parametrize("kind", [str, Path])
def test_path_may_be_a_string_and_its_folder_is_made(kind, tmp_path):
    path = kind(tmp_path / "new" / "folder" / "run.pt")
    Run(1).save(path, step=0)
    assert Run(2).load(path) == 0
    assert [file.name for file in Path(path).parent.iterdir()] == ["run.pt"]


def test_newer_checkpoint_replaces_the_older(saved):
    run = Run(2)
    run.load(saved)
    run.train(5, 7)
    run.save(saved, step=7)
    again = Run(3)
    assert again.load(saved) == 7
    assert_same(again.state(), run.state())
    assert [file.name for file in saved.parent.iterdir()] == ["run.pt"]


def test_model_alone_leaves_the_random_state_alone(saved):
    run = Run(2)
    before = run.state()
    assert load_checkpoint(saved, run.model) == 5
    assert_same(run.state()[1:], before[1:])
    expected = Run(3)
    expected.load(saved)
    assert_same(run.state()[0], expected.state()[0])


def test_models_of_any_kind_can_be_saved(path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.ones(2, 3))
    save_checkpoint(path, model, torch.optim.SGD(model.parameters()), 1)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_checkpoint(path, other, torch.optim.SGD(other.parameters()))
    assert_close(other.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_other_kernels_may_go_on_with_a_checkpoint(saved):
    assert Run(2, fused=False).load(saved) == 5


# Writing


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("existing", [True, False], ids=["replaces", "new"])
def test_failure_while_writing_leaves_the_old_file_whole(error, existing, path, monkeypatch):
    run = Run(1)
    if existing:
        run.save(path, step=3)
    before = path.read_bytes() if existing else None

    def write_half(content: object, stream: io.BufferedWriter) -> None:
        stream.write(b"PK\3\4 half of a checkpoint")
        stream.flush()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", write_half)
        with pytest.raises(type(error)):
            run.save(path, step=4)
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"] * existing, "a part was left behind"
    if existing:
        assert path.read_bytes() == before
        assert Run(2).load(path) == 3


def test_new_file_takes_its_name_only_when_it_is_on_the_disk(path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: events.append("fsync") or fsync(number))
    monkeypatch.setattr(os, "replace", lambda *names: events.append("replace") or rename(*names))
    Run(1).save(path)
    assert events == ["fsync", "replace"]


# Reading


def test_missing_file_is_that(path):
    with pytest.raises(FileNotFoundError):
        Run(1).load(path)


def test_file_holds_nothing_but_data(saved):
    assert torch.serialization.get_unsafe_globals_in_checkpoint(saved) == []
    content = torch.load(saved, weights_only=True)
    assert content["config"] == asdict(GPTConfig(**SIZES))
    assert content["step"] == 5


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_file_can_not_run_code(write, path):
    write({"format": 1, "model": Trap(path.parent / "trapped")}, path)
    assert_refused(Run(1), path, r"run\.pt is no checkpoint, or it is damaged: ")
    assert not (path.parent / "trapped").exists()


@pytest.mark.parametrize(
    "content",
    [{}, {"format": 1}, {"format": 99}, [1, 2], torch.ones(3), {"model": {}, "optimizer": {}, "step": 1}],
    ids=["empty", "no-more", "other-version", "list", "tensor", "other-course"],
)
def test_foreign_file_is_refused(content, path):
    torch.save(content, path)
    assert_refused(Run(1), path, r"run\.pt is no checkpoint of this course$")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4", bytes(10_000)], ids=["empty", "text", "zip", "zeros"])
def test_file_of_another_kind_is_refused(content, path):
    path.write_bytes(content)
    assert_refused(Run(1), path, r"run\.pt is no checkpoint, or it is damaged: \S")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_file_that_was_cut_off_is_refused(share, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert_refused(Run(2), saved, "no checkpoint, or it is damaged: ")


def test_one_wrong_byte_is_noticed_wherever_it_matters(saved):
    content, run = saved.read_bytes(), Run(2)
    run.load(saved)
    expected, noticed = run.state(), 0
    positions = range(7, len(content), len(content) // 60)
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 0x55
        saved.write_bytes(changed)
        try:
            run.load(saved)
        except ValueError:
            noticed += 1
        assert_same(run.state(), expected)  # refused, or the byte meant nothing
    assert noticed > 0.6 * len(positions)


def test_wrong_byte_in_a_weight_is_noticed(saved):
    numbers = torch.load(saved, weights_only=True)["model"]["tok_emb.weight"].numpy().tobytes()
    content = bytearray(saved.read_bytes())
    content[content.index(numbers) + 5] ^= 1
    saved.write_bytes(content)
    assert_refused(Run(2), saved, "is damaged: the checksum of .* is wrong")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_rate": 0.0}, r"belongs to a model with drop_rate=0\.3 \(here 0\.0\)$"),
        ({"tied": True}, r"with tied=False \(here True\)$"),
        ({"n_layers": 3, "n_heads": 2}, r"with n_heads=3 \(here 2\), n_layers=2 \(here 3\)$"),
        ({"emb_dim": 24}, r"with emb_dim=12 \(here 24\)$"),
    ],
    ids=["dropout", "tied", "layers-and-heads", "width"],
)
def test_checkpoint_of_another_configuration_is_refused(changes, message, saved):
    assert_refused(Run(2, **changes), saved, message)


class Linears:
    """As `Run`, with models that have no configuration."""

    def __init__(self, *shapes: tuple[int, int], seed: int = 0, names: Sequence[str] | None = None) -> None:
        torch.manual_seed(seed)
        layers = [nn.Linear(*shape, bias=False) for shape in shapes]
        names = names or [f"layer{number}" for number in range(len(shapes))]
        self.model = nn.ModuleDict(dict(zip(names, layers, strict=True)))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        sum(layer.weight.square().sum() for layer in layers).backward()
        self.optimizer.step()
        self.generator = torch.Generator()

    save, load, state = Run.save, Run.load, Run.state


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Linears((2, 3), (4, 5), seed=1), r"layer1\.weight: the checkpoint has shape \(4, 3\), the model \(5, 4\)$"),
        (Linears((2, 3), seed=1), r"layer1\.weight: the checkpoint has shape \(4, 3\), the model none$"),
        (
            Linears((2, 3), (3, 4), (4, 1), seed=1),
            r"layer2\.weight: the checkpoint has shape none, the model \(1, 4\)$",
        ),
        (Linears((2, 3), (3, 4), seed=1, names=["layer0", "last"]), r"layer1\.weight: .* the model none$"),
    ],
    ids=["shape", "fewer", "more", "name"],
)
def test_checkpoint_of_other_shapes_is_refused(other, message, path):
    Linears((2, 3), (3, 4)).save(path)
    assert_refused(other, path, message)


def other_optimizer(run: Run, optimizer: torch.optim.Optimizer) -> Run:
    run.optimizer = optimizer
    return run


@pytest.mark.parametrize(
    "make",
    [
        lambda model: torch.optim.SGD(parameter_groups(model, 0.1), lr=0.1, momentum=0.9),
        lambda model: torch.optim.Adam(parameter_groups(model, 0.1)),
        lambda model: torch.optim.AdamW(model.parameters()),
        lambda model: torch.optim.AdamW(parameter_groups(model, 0.1)[:1]),
        lambda model: torch.optim.AdamW(parameter_groups(model, 0.1)[::-1]),
        lambda model: torch.optim.AdamW(
            [group | {"params": group["params"][::-1]} for group in parameter_groups(model, 0.1)]
        ),
    ],
    ids=["sgd", "adam", "one-group", "group-less", "groups-swapped", "other-order"],
)
def test_checkpoint_of_another_optimizer_is_refused(make, saved):
    run = Run(2)
    run.train(0, 2)
    assert_refused(other_optimizer(run, make(run.model)), saved, "belongs to another optimizer: ")


@pytest.mark.parametrize("count", [0, 2])
def test_other_number_of_generators_is_refused(count, saved):
    run = Run(2)
    generators = [torch.Generator() for _ in range(count)]
    states = [generator.get_state() for generator in generators]
    load = partial(load_checkpoint, model=run.model, optimizer=run.optimizer, generators=generators)
    assert_refused(
        run, saved, rf"holds the state of \d random generators, got {count + 1 + torch.cuda.is_available()}", load
    )
    assert_same([generator.get_state() for generator in generators], states)


def test_random_state_that_fits_no_generator_is_refused(saved):
    content = torch.load(saved, weights_only=True)
    content["random"][-1] = torch.zeros(16, dtype=torch.uint8)  # as of a generator on a GPU
    torch.save(content, saved)
    assert_refused(Run(2), saved, "no state for a generator on cpu")


# A killed run, in processes of its own

SCRIPT = """
import hashlib, json, sys, time
from functools import partial
from pathlib import Path
import torch
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.training import get_batch, parameter_groups, train

def run(path, pause):
    torch.manual_seed(0)
    corpus, generator = torch.randint(11, (300,)), torch.Generator().manual_seed(1)
    model = GPTModel(GPTConfig(11, 8, 12, 3, 2, drop_rate=0.3))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-2)
    start = load_checkpoint(path, model, optimizer, [generator]) if path.exists() else 0

    def after_step(done):
        if done % 4 == 0:
            save_checkpoint(path, model, optimizer, done, [generator])
        print(done, file=sys.stderr, flush=True)
        time.sleep(pause)

    next_batch = partial(get_batch, corpus, 8, 4, generator)
    losses = train(model, optimizer, next_batch, 40, first_step=start, after_step=after_step)
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    print(json.dumps([start, losses, hashlib.sha256(weights).hexdigest()]))

torch.set_num_threads(1)
for path in sys.argv[2:]:
    run(Path(path), float(sys.argv[1]))
"""


def start_script(pause: float, *paths: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(pause), *map(str, paths)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not known there")
def test_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    killed, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    with start_script(0.02, killed) as process:
        for line in process.stderr:
            if line.strip() == "18":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and killed.exists()
    with start_script(0, killed, whole) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    resumed, expected = (json.loads(line) for line in output.splitlines() if line.startswith("["))
    start, losses, weights = resumed
    assert 16 <= start < 40 and start % 4 == 0
    assert expected == [0, [*expected[1][:start], *losses], weights]
