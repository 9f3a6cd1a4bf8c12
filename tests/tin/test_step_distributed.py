"""A training step over two processes moves the weights as one process with the whole batch does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import tin
from tests.tin.test_step import RECIPE, clips, run, step_of
from tin.distributed import World, check_equal_weights, process_group
from tin.recipes import from_dict
from tin.train import TrainStep

HALVES = ((0, 1, 2, 3), (4, 5, 6, 7))
CASES = {
    "plain": (),
    "accumulated": ("train.accumulate=2", "train.batch_size=2"),
    "no static graph": ("train.static_graph=false",),
    "bf16": ("train.grad_compression=bf16",),
    "averaged": ("train.ema=0.5",),
}


def work(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=Path(folder, "port").read_text(), LOCAL_WORLD_SIZE="2")
    torch.set_num_threads(1)
    world = World(rank, rank, 2)
    with process_group(world, torch.device("cpu"), timeout_s=60):
        for name, overrides in CASES.items():
            recipe = from_dict(RECIPE, "small", overrides)
            torch.manual_seed(1 + rank)  # DDP hands rank 0's weights to all
            model = tin.build_model(**recipe.model.model_dump(exclude={"pretrained"}))
            step = TrainStep(
                model, recipe, lr=recipe.optim.lr, steps_per_epoch=6, device=torch.device("cpu"), world=world, seed=3
            )
            step.model.eval()  # batch statistics would be those of half the batch
            run(step, clips(*HALVES[rank]))
            if rank == 0:
                torch.save(step.model.state_dict(), Path(folder, f"{name}.pt"))
            check_equal_weights(step.model, world)
            step.train_mode()
            before = step.model.get_buffer("bn1.running_mean").clone()
            run(step, clips(*HALVES[rank]), 1)  # now statistics move, each rank's by its own clips, and are shared
            assert not torch.equal(before, step.model.get_buffer("bn1.running_mean"))
            check_equal_weights(step.model, world)


@pytest.mark.slow
def test_two_processes_step_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(sock.getsockname()[1]))
    mp.spawn(work, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    whole = step_of("train.batch_size=8")
    whole.model.eval()
    run(whole, clips(*HALVES[0], *HALVES[1]))
    for name in CASES:
        state = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        # bf16 has 8 bits of a gradient, which is a hundredth of a weight's way here
        tolerance = 1e-3 if name == "bf16" else 2e-6
        for key, value in whole.model.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=tolerance, msg=f"{name}: {key}")
