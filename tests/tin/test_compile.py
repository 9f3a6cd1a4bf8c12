"""torch.compile takes each network as one graph, once: no break, and no second compilation for what it has seen."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import tin

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("arch", "amp"), [("tin_resnet18", False), ("tin_resnet18", True), ("tin_resnet50", True), ("tsm_resnet18", False)]
)
def test_training_and_evaluation_are_one_graph_each(arch: str, amp: bool) -> None:
    model = tin.build_model(arch, 5, num_segments=4)
    frames = torch.randn(8, 3, 32, 32).to(memory_format=torch.channels_last)
    graphs = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train() -> None:
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16) if amp else nullcontext():
            loss = compiled(frames).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def evaluate() -> None:
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16) if amp else nullcontext():
            compiled(frames)

    train()
    evaluate()
    assert graphs.frame_count == 2
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            train()
            evaluate()
    assert graphs.frame_count == 2


def test_the_counter_does_see_a_second_graph() -> None:
    model = tin.build_model("tin_resnet18", 5, num_segments=4).eval()
    graphs = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=graphs, dynamic=False)
    with torch.no_grad():
        compiled(torch.randn(4, 3, 32, 32))
        with (
            torch._dynamo.config.patch(error_on_recompile=True),
            pytest.raises(torch._dynamo.exc.RecompileError),
        ):
            compiled(torch.randn(4, 3, 48, 48))
