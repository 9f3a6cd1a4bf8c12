"""The forms of the shift that are timed against each other compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.shift_forms import FORMS, IN_PLACE, Block, _joined, forms
from tin.bench.timing import Rounds
from tin.bench.workload import Workload
from tin.ops import temporal_interlace_reference

TIMED = [
    pytest.param(name, training, id=f"{name}, {'training' if training else 'inference'}")
    for name, form in FORMS.items()
    for training, extra in ((False, form.inference), (True, form.training))
    if extra is not None and name != "no shift"
]


def computed(form: Callable[[Block, Tensor], tuple[Tensor, Tensor]], training: bool) -> list[Tensor]:
    """What a form makes of a block's input and the gradients, all that a block reads of its input being that of the form."""
    torch.manual_seed(0)
    block = Block.build(Workload(batch_size=2), (64, 6, 5), training)
    with torch.set_grad_enabled(training):
        outputs = form(block, _joined(block))
    if not training:
        return [outputs[0]]
    inputs = [block.made, block.passed, block.convolution.weight]
    weights = [torch.randn(output.shape) for output in outputs]
    return [outputs[0].detach(), *torch.autograd.grad(outputs, inputs, weights)]


def reference(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    return block.convolution(temporal_interlace_reference(x, block.offset, block.gain, block.num_segments)), x


@pytest.mark.parametrize(("name", "training"), TIMED)
def test_every_form_computes_what_the_reference_does(name: str, training: bool) -> None:
    for found, expected in zip(computed(FORMS[name].compute, training), computed(reference, training), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(FORMS))
def test_in_place_is_in_place_and_nothing_else_is(name: str) -> None:
    torch.manual_seed(0)
    block = Block.build(Workload(), (64, 6, 5), training=False)
    with torch.no_grad():
        x = _joined(block)
        before = x.clone()
        FORMS[name].compute(block, x)
    assert torch.equal(x, before) == (name not in IN_PLACE)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_each_form_has_a_row_at_each_shape(training: bool) -> None:
    rows = forms(Workload("tin_resnet18", batch_size=2, input_size=32), Rounds(1, 2), training=training)
    shapes = {tuple(line["shape"]) for line in rows}
    assert shapes >= {(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)}
    for shape in shapes:
        here = {line["form"]: line for line in rows if tuple(line["shape"]) == shape}
        assert set(here) == set(FORMS) - {"two convolutions" if training else "copied, gradients together"}
        size = 2 * 8 * 4 * shape[0] * shape[1] * shape[2]
        assert here["no shift"]["ratio"] == 1
        assert here["copied"]["extra_bytes"] == (4 if training else 2) * size
        assert here["in place"]["extra_bytes"] == (-1.25 if training else 0.75) * size
        made = size * max(shape[0] // 4, 64) // shape[0]
        assert here["two products"]["extra_bytes"] == size + 2 * made
