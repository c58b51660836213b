"""Which device, and a seed that prints nothing."""

from __future__ import annotations

import pytest
import torch

from utils.environment import pick_device, set_seed


def test_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")


def test_device_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


def test_apples_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("cpu")


def test_seed_repeats_the_draws_and_prints_nothing(capsys: pytest.CaptureFixture):
    draws = []
    for seed in (123, 123, 124):
        assert set_seed(seed) is None
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.manual_seed(123)
    assert torch.equal(draws[0], torch.rand(4))
    assert capsys.readouterr() == ("", "")
