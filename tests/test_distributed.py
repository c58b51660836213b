"""Several processes: two under torchrun train as one does with the whole batch. This file is also what they run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.testing import assert_close

from utils import distributed
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.distributed import (
    mean_over_processes,
    own_share,
    process_group,
    rank,
    spread,
    without_exchange,
    world_size,
)
from utils.gpt import GPTModel
from utils.gpt_config import GPTConfig
from utils.training import parameter_groups, train

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = 20

#        rows of the whole batch, rows of a part in each process, longest gradient, tied head
RUNS = {
    "plain": (8, None, None, False),
    "parts": (8, 1, None, True),  # several backward passes, one exchange
    "ragged-parts-and-clipping": (10, 2, 0.5, False),
}


# What one process does, alone or as one of two


def ids_of(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (rows, 9), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def train_gpt(rows: int, part: int | None, max_grad_norm: float | None, tied: bool) -> tuple[list[float], nn.Module]:
    """Train on the own share of 20 batches of that many rows; alone, without parts."""
    torch.manual_seed(rank())  # only the first process's weights count
    cfg = GPTConfig(11, 8, 12, 3, 2, drop_rate=0.0, tied=tied, init_std=0.2)
    model = spread(GPTModel(cfg))
    # The keys' bias has gradient 0 but for rounding, which AdamW with its tiny eps would turn into whole steps.
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=3e-3, eps=1e-5)
    batches = (own_share(*ids_of(rows, seed)) for seed in range(STEPS))
    size = None if world_size() == 1 else part
    losses = train(model, optimizer, batches.__next__, STEPS, max_grad_norm=max_grad_norm, micro_batch_size=size)
    return losses, model


class Line(nn.Module):
    """Its loss is w times the mean of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.w * x.mean()


def error_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""


def work(folder: Path) -> None:
    """What each process under torchrun does; it leaves its findings in the folder."""
    found: dict[str, object] = {"before": [world_size(), rank()]}
    with process_group() as device:
        found |= {"inside": [world_size(), rank()], "device": str(device), "backend": dist.get_backend()}
        found["share"] = own_share(torch.arange(6))[0].tolist()
        found["odd"] = error_of(lambda: own_share(torch.arange(7)))
        found["mean"] = mean_over_processes(torch.tensor([1.0, 10.0 * rank()])).tolist()
        for name, run in RUNS.items():
            losses, model = train_gpt(*run)
            found[name] = losses
            torch.save(model.module.state_dict(), folder / f"{name}{rank()}.pt")
        if rank() == 0:
            save_checkpoint(folder / "run.pt", model, torch.optim.SGD(model.parameters()), STEPS)

        line, x = spread(Line()), own_share(torch.tensor([2.0, 6.0]))[0]
        with without_exchange(line):
            line(x, x)[1].backward()
        found["own gradient"] = line.module.w.grad.item()
        line.zero_grad()
        line(x, x)[1].backward()
        found["mean gradient"] = line.module.w.grad.item()

        # the second process meets a number that the first one does not see
        rows = [own_share(torch.tensor(pair)) * 2 for pair in ([1.0, 1.0], [1.0, math.nan])]
        optimizer = torch.optim.SGD(line.parameters(), lr=0.5)
        found["nan"] = error_of(lambda: train(line, optimizer, iter(rows).__next__, 2))
        found["after nan"] = line.module.w.item()
    found["after"] = [world_size(), dist.is_initialized()]
    (folder / f"found{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
    sys.exit()


# Alone


def test_alone_everything_is_as_without_processes():
    assert "RANK" not in os.environ
    with process_group() as device:
        assert device is None and not dist.is_initialized()
        assert (world_size(), rank()) == (1, 0)
    model, x, y = nn.Linear(2, 2), torch.arange(3), torch.arange(6).view(3, 2)
    assert spread(model) is model
    shares = own_share(x, y)
    assert torch.equal(shares[0], x) and torch.equal(shares[1], y)
    value = torch.tensor(2.0)
    assert mean_over_processes(value) is value
    with without_exchange(model):
        model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None


@pytest.mark.parametrize(("rows", "size"), [(6, 1), (6, 2), (6, 3), (6, 6), (0, 2)])
def test_shares_are_equal_and_together_the_batch_in_its_order(rows, size, monkeypatch):
    x, y = torch.arange(rows), torch.arange(2 * rows).view(rows, 2)
    monkeypatch.setattr(distributed, "world_size", lambda: size)
    shares = []
    for number in range(size):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(own_share(x, y))
    assert {len(share[0]) for share in shares} == {rows // size}
    together = [torch.cat(parts) for parts in zip(*shares, strict=True)]
    assert torch.equal(together[0], x) and torch.equal(together[1], y)


@pytest.mark.parametrize(("rows", "size"), [(7, 2), (1, 2), (8, 3)])
def test_rows_that_can_not_be_shared_out_are_refused(rows, size, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: size)
    with pytest.raises(ValueError, match=f"a batch of {rows} rows can't be shared out evenly among {size} processes"):
        own_share(torch.zeros(rows, 2))


# Two processes


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> tuple[Path, str]:
    """The folder with the findings of two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).resolve()), str(folder)],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def findings(launched) -> list[dict]:
    folder, _ = launched
    return [json.loads((folder / f"found{number}.json").read_text()) for number in range(2)]


def test_processes_find_each_other_and_part_again(findings):
    for number, found in enumerate(findings):
        assert found["before"] == [1, 0]
        assert found["inside"] == [2, number]
        assert (found["device"], found["backend"]) == ("None", "gloo")
        assert found["after"] == [1, False]


def test_each_process_takes_its_half_and_refuses_an_odd_batch(findings):
    assert [found["share"] for found in findings] == [[0, 1, 2], [3, 4, 5]]
    assert {found["odd"] for found in findings} == {"a batch of 7 rows can't be shared out evenly among 2 processes"}


def test_all_processes_see_the_mean(findings):
    assert [found["mean"] for found in findings] == [[1.0, 5.0]] * 2


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one_with_the_whole_batch(name, launched, findings, one_thread):
    folder, _ = launched
    losses, model = train_gpt(*RUNS[name])
    assert len(losses) == STEPS and losses[-1] < losses[0] - 0.1
    for number, found in enumerate(findings):
        assert found[name] == pytest.approx(losses, abs=1e-5)
        weights = torch.load(folder / f"{name}{number}.pt")
        assert_close(weights, dict(model.state_dict()), atol=1e-4, rtol=0)
    both = [torch.load(folder / f"{name}{number}.pt") for number in range(2)]
    assert_close(*both, atol=0, rtol=0)


def test_gradients_are_exchanged_but_where_that_is_put_off(findings):
    assert [found["own gradient"] for found in findings] == [2.0, 6.0]
    assert [found["mean gradient"] for found in findings] == [4.0, 4.0]


def test_loss_that_is_not_finite_in_one_process_stops_all(findings):
    assert {found["nan"] for found in findings} == {"the loss is nan at step 1; a lower learning rate often helps"}
    assert [found["after nan"] for found in findings] == [0.5, 0.5]  # after the one good step


def test_only_the_first_process_prints(launched, findings):
    _, printed = launched
    expected = [f"{STEPS} steps done, loss of the last batch {findings[0][name][-1]:.4f}" for name in RUNS]
    assert printed.splitlines() == expected


def test_checkpoint_of_a_spread_model_fits_the_plain_one(launched):
    folder, _ = launched
    name = list(RUNS)[-1]
    torch.manual_seed(5)
    model = GPTModel(GPTConfig(11, 8, 12, 3, 2, drop_rate=0.0, init_std=0.2))
    assert load_checkpoint(folder / "run.pt", model) == STEPS
    assert_close(dict(model.state_dict()), dict(torch.load(folder / f"{name}0.pt")), atol=0, rtol=0)
