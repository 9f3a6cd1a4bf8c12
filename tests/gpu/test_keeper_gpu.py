"""Saving a state that lies on a GPU: it is what it was, and neither the process nor the training stream waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tin.checkpoints import load_state
from tin.recipes import CheckpointSettings
from tin.train.keeper import CheckpointKeeper

pytestmark = pytest.mark.gpu


def state(value: float) -> dict[str, Any]:
    weights = torch.full((64, 64, 3, 3), value, device="cuda").to(memory_format=torch.channels_last)
    momentum = [torch.full((1 << 20,), value, device="cuda") for _ in range(8)]
    return {"weights": weights, "momentum": momentum, "step": int(value), "host": torch.tensor(value)}


def test_a_state_is_what_it_was_and_nothing_waits_for_it(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, CheckpointSettings(), pytest.fail)
    first, second = state(1.0), state(2.0)
    keeper.save(first)  # pins host memory, which may wait for the GPU
    keeper.finish()
    torch.cuda.synchronize()

    torch.cuda._sleep(4_000_000_000)  # seconds of work queued before the state is what it shall be
    second["weights"].add_(1.0)
    queued = torch.cuda.Event()
    queued.record()
    torch.cuda.set_sync_debug_mode("error")
    try:
        keeper.save(second)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not queued.query()  # saved while the GPU was still busy with what came before
    for tensor in (second["weights"], *second["momentum"]):
        tensor.fill_(77.0)  # the next step, queued at once
    keeper.finish()

    saved = load_state(tmp_path / "last.pt")
    assert saved["step"] == 2
    assert saved["weights"].eq(3.0).all()
    assert saved["weights"].is_contiguous(memory_format=torch.channels_last)
    assert all(part.eq(2.0).all() for part in saved["momentum"])
    assert saved["host"] == 2.0
    assert second["weights"].eq(77.0).all()


def test_states_saved_one_after_the_other_do_not_mix(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path, CheckpointSettings(every_epochs=1), pytest.fail)
    training = state(0.0)
    for epoch in range(1, 21):
        for tensor in (training["weights"], *training["momentum"]):
            tensor.add_(1.0)
        keeper.epoch_done(epoch, training)
    keeper.finish()
    for epoch in range(1, 21):
        saved = load_state(tmp_path / f"epoch_{epoch:04d}.pt")
        assert saved["weights"].eq(epoch).all()
        assert all(part.eq(epoch).all() for part in saved["momentum"])
