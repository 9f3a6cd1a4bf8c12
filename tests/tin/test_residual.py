"""The splits and joins of residual blocks: exact gradients, memory that is used only where nobody looks, and every fallback."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tin
from tin import joins, norms, ops
from tin.joins import Relay
from tin.models.interlace import NoInterlace, TemporalInterlace, TemporalShift
from tin.models.resnet import TemporalResNet

pytestmark = pytest.mark.skipif(not ops.has_native("cpu"), reason="the kernels were not built here")

FORMATS = [torch.channels_last, torch.contiguous_format]
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def clip(
    *shape: int, dtype: torch.dtype = torch.float64, layout: torch.memory_format = torch.channels_last, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)


def composed(module: TemporalInterlace, x: Tensor) -> tuple[Tensor, Tensor]:
    """TIN's module of PyTorch's operators and the op's reference."""
    offset, gain = module.offsets_and_gains(x)
    shifts = torch.cat([offset, -offset], 1), torch.cat([gain, gain], 2)
    return ops.temporal_interlace_reference(x, *shifts, module.num_segments, module.fold // 4), x


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize(("segments", "channels"), [(4, 16), (8, 64), (1, 32), (64, 16), (65, 16)])
def test_tins_split_equals_pytorchs_operators_in_value_and_every_gradient(
    segments: int, channels: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(1)
    module = TemporalInterlace(channels, segments).double()
    other = copy.deepcopy(module)
    x = clip(2 * segments, channels, 3, 2, layout=layout).requires_grad_()
    y = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    flows = clip(*x.shape, layout=layout, seed=2), clip(*x.shape, layout=layout, seed=3)
    found, expected = module(x), composed(other, y)
    for ours, theirs in zip(found[:2], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.autograd.backward(found[:2], flows)
    torch.autograd.backward(expected, flows)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
    for (name, ours), theirs in zip(module.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("kind", ["tin", "tsm"])
def test_splits_pass_a_strict_gradcheck(kind: str, owned: bool, stride: int) -> None:
    torch.manual_seed(0)
    module = (TemporalInterlace(32, 4) if kind == "tin" else TemporalShift(32, 4)).double()
    x = clip(8, 32, 2, 3).requires_grad_()
    weights = list(module.parameters())

    def both(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        # what a join has made may be overwritten; the whole of what stands for it is its fold and the rest
        joined = joins.join(nn.Identity(), nn.Identity(), x * 1.0, torch.full_like(x, 9.0).requires_grad_())
        branch, identity, fold = module(joined, Relay() if owned else None, stride)
        assert (branch.data_ptr() == joined.data_ptr()) == owned
        assert (fold is not None) == (owned and stride == 1)
        return branch, identity if fold is None else identity[:, fold.shape[1] :]

    assert torch.autograd.gradcheck(both, (x, *weights))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kind", "channels"), [("tin", 32), ("tin", 288), ("tsm", 64)])
def test_a_split_masks_the_gradient_for_the_join_before_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, channels: int, stride: int, dtype: torch.dtype
) -> None:
    """Bit by bit what the two passes come to, in one pass fewer."""
    torch.manual_seed(0)
    module = TemporalInterlace(channels, 4) if kind == "tin" else TemporalShift(channels, 4)
    module = module.to(torch.promote_types(dtype, torch.float32))
    masks: list[Tensor] = []
    real = torch.ops.tin.add_relu_backward

    def noted(grad: Tensor, signs: Tensor) -> Tensor:
        masks.append(grad)
        result: Tensor = real(grad, signs)
        return result

    monkeypatch.setattr(torch.ops.tin, "add_relu_backward", noted)
    found = []
    for owned in (True, False):
        a, b = (clip(8, channels, 7, 5, dtype=dtype, seed=s).requires_grad_() for s in (1, 2))
        relay = Relay(module.fold if kind == "tin" else 0) if owned else None
        branch, identity, _ = module(joins.join(nn.Identity(), nn.Identity(), a * 1, b, relay=relay), relay, stride)
        flows = [clip(*t.shape, dtype=dtype, seed=3) for t in (branch, identity)]
        torch.autograd.backward([branch, identity], flows, inputs=[a, b, *module.parameters()])
        found.append([a.grad, b.grad, *(p.grad for p in module.parameters())])
        module.zero_grad()
        assert len(masks) == 1 - owned
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_a_further_readers_gradient_passes_through_the_same_join() -> None:
    module = TemporalInterlace(32, 4).double()
    found = []
    for owned in (True, False):
        x = clip(8, 32, 3, 5).requires_grad_()
        joined = joins.join(nn.Identity(), nn.Identity(), x * 1.0, torch.zeros_like(x))
        further = joined * 3.0  # keeps nothing of it
        branch, identity, _ = module(joined, Relay() if owned else None)
        (branch.square().sum() + identity[:, 8:].sum() + further.sum()).backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passed": clip(8, 16, 2, 3)}, "passed must be of every 1-th pixel"),
        ({"signs": torch.zeros(3, dtype=torch.uint8)}, "signs must be bytes, a bit for each element"),
        ({"group_size": 3}, "multiple of 8 channels"),
        ({"stride": 0}, "the stride at least 1"),
        ({"grad": clip(8, 16, 1, 1)}, "several channels and pixels"),
    ],
    ids=str,
)
def test_a_gradient_that_does_not_fit_its_split_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "grad": clip(8, 16, 3, 3), "kept": None, "offset": torch.zeros(2, 2).double(),
        "weight": torch.ones(2, 4, 2).double(), "num_segments": 4, "group_size": 4, "passed": None, "stride": 1,
        "signs": torch.zeros(8 * 16 * 9 // 8, dtype=torch.uint8),
    }  # fmt: skip
    torch.ops.tin.split_backward(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.tin.split_backward(**arguments | change)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["tin", "tsm"])
def test_a_branch_that_nobody_used_gives_no_gradient(kind: str, stride: int) -> None:
    module = (TemporalInterlace(16, 4) if kind == "tin" else TemporalShift(16, 4)).double()
    x = clip(8, 16, 4, 3).requires_grad_()
    identity = module(x, None, stride).identity
    identity.backward(torch.full_like(identity, 2.0))
    expected = torch.zeros_like(x)
    expected[:, :, ::stride, ::stride] = 2.0
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "fold"),
    [((1, 16, 1, 1), 4), ((3, 64, 7, 5), 16), ((2, 2080, 3, 3), 520), ((2, 64, 56, 56), 16), ((5, 36, 1, 9), 9)],
)
def test_the_fold_and_its_means_are_taken_in_one_pass(shape: tuple[int, ...], fold: int, dtype: torch.dtype) -> None:
    x = (clip(*shape) + 100).to(dtype)  # far from zero: a careless sum loses digits
    kept, means = torch.ops.tin.take_fold(x, fold)
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(kept, x[:, :fold])
    assert kept.is_contiguous(memory_format=torch.channels_last)
    assert means.dtype == wide
    torch.testing.assert_close(means.double(), x[:, :fold].double().mean((2, 3)), rtol=1e-6, atol=0)
    flow = clip(*means.shape, 1, 1).flatten(1).to(wide)
    expected = x.clone(memory_format=torch.preserve_format)
    expected[:, :fold] = (expected[:, :fold].to(wide) + (flow / (shape[2] * shape[3]))[..., None, None]).to(dtype)
    torch.ops.tin.spread_means_(x, flow)
    assert torch.equal(x, expected)


@pytest.mark.parametrize(
    "x", [clip(2, 8, 3, 3, layout=torch.contiguous_format), clip(0, 8, 3, 3), clip(2, 8, 3, 3)], ids=str
)
def test_a_fold_that_cannot_be_taken_is_refused(x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="x must be channels_last and not empty, and fold from 1"):
        torch.ops.tin.take_fold(x, 9 if x.numel() else 4)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("segments", "groups", "size", "shape"),
    [
        (8, 4, 4, (64, 9, 7)),
        (4, 2, 8, (72, 5, 5)),
        (3, 4, 16, (256, 3, 2)),
        (64, 2, 40, (88, 20, 3)),
        (1, 1, 8, (8, 1, 1)),
    ],
)
def test_in_place_the_op_gives_the_same_bits(
    segments: int, groups: int, size: int, shape: tuple[int, ...], dtype: torch.dtype, keep: bool
) -> None:
    x = clip(2 * segments, *shape, dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    offset, weight = (4 * clip(2, groups, 1, 1)).flatten(1).to(wide), clip(2, segments, groups, 1)[..., 0].to(wide)
    expected, before = ops.temporal_interlace(x, offset, weight, segments, size), x[:, : groups * size].clone()
    kept = torch.ops.tin.temporal_interlace_(x, offset, weight, segments, size, keep)
    assert torch.equal(x, expected)
    assert torch.equal(kept, before) if keep else kept.numel() == 0


def test_contiguous_memory_is_not_shifted_in_place() -> None:
    x = clip(4, 16, 3, 3, layout=torch.contiguous_format)
    with pytest.raises(RuntimeError, match="channels_last"):
        torch.ops.tin.temporal_interlace_(x, torch.zeros(1, 4).double(), torch.ones(1, 4, 4).double(), 4, 1, True)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("shape", "pooled"), [((3, 64, 7, 5), 16), ((2, 256, 20, 17), 64), ((2, 24, 1, 1), 24)])
def test_a_join_that_pools_joins_alike(shape: tuple[int, ...], pooled: int, norm: bool, dtype: torch.dtype) -> None:
    """Bit by bit, and the means are those that the split would take of its result."""
    branch, identity, fold = (clip(*shape, dtype=dtype, seed=s) for s in (1, 2, 3))
    fold = fold[:, :16].contiguous(memory_format=torch.channels_last)
    values = [
        clip(shape[1], 1, 1, 1, seed=s).flatten().abs().to(torch.promote_types(dtype, torch.float32)) for s in range(4)
    ]
    for kept in (None, fold):
        ours, theirs = branch.clone(), branch.clone()
        if norm:
            torch.ops.tin.norm_add_relu_(theirs, identity, *values, 1e-5, kept)
            means = torch.ops.tin.norm_add_relu_pool_(ours, identity, *values, 1e-5, kept, pooled)
        else:
            signs, means = torch.ops.tin.add_relu_pool_(ours, identity, kept, True, pooled)
            assert torch.equal(signs, torch.ops.tin.add_relu_signs_(theirs, identity, kept))
        assert torch.equal(ours, theirs)
        assert torch.equal(means, torch.ops.tin.take_fold(theirs, pooled)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooled": 0}, "pooled from 1 to its channels"),
        ({"pooled": 17}, "pooled from 1 to its channels"),
        ({"branch": clip(2, 16, 3, 3, layout=torch.contiguous_format)}, "what is joined must be channels_last"),
        ({"fold": clip(2, 4, 3, 3)}, "multiples of 8 channels"),
    ],
    ids=str,
)
def test_a_join_that_cannot_pool_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "branch": clip(2, 16, 3, 3), "identity": clip(2, 16, 3, 3), "fold": None, "signs": False, "pooled": 8,
    }  # fmt: skip
    torch.ops.tin.add_relu_pool_(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.tin.add_relu_pool_(**arguments | change)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_the_join_passes_a_strict_gradcheck(layout: torch.memory_format) -> None:
    branch, identity = (clip(2, 3, 3, 5, layout=layout, seed=s).requires_grad_() for s in (1, 2))
    assert torch.autograd.gradcheck(
        lambda a, b: joins.join(nn.Identity(), nn.Identity(), a * 1.0, b), (branch, identity)
    )


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_joins_are_pytorchs_addition_and_relu_bit_by_bit(dtype: torch.dtype, layout: torch.memory_format) -> None:
    branch, identity, flow = (clip(3, 10, 7, 5, dtype=dtype, layout=layout, seed=s) for s in (1, 2, 3))
    branch[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    a, b = (t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (branch, identity))
    c, d = (t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (branch, identity))
    ours, theirs = joins.join(nn.Identity(), nn.Identity(), a * 1, b), torch.relu(c * 1 + d)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    ours.backward(flow)
    theirs.backward(flow)
    for x, y in ((a, c), (b, d)):
        assert torch.equal(x.grad, y.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_norm_in_evaluation_mode_is_part_of_the_join(dtype: torch.dtype, layout: torch.memory_format) -> None:
    norm = nn.BatchNorm2d(24).eval().to(torch.promote_types(dtype, torch.float32))
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.5)
    branch, identity = (clip(2, 24, 3, 5, dtype=dtype, layout=layout, seed=s) for s in (1, 2))
    wide = branch.to(norm.weight.dtype)
    expected = torch.relu(norm(wide) + identity).to(dtype)
    with torch.inference_mode():
        found = joins.join(nn.Identity(), norm, branch, identity)
    assert found.data_ptr() == branch.data_ptr()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("place", ["convolution", "norm", "relu"])
def test_what_is_watched_is_called_and_its_output_left_alone(place: str) -> None:
    modules = {"convolution": nn.Conv2d(8, 8, 1), "norm": nn.BatchNorm2d(8).eval(), "relu": nn.ReLU()}
    x, seen = clip(1, 8, 2, 2, dtype=torch.float32), []
    modules[place].register_forward_hook(lambda module, args, out: seen.append((out, out.clone())))
    with torch.inference_mode():
        found = norms.rectified(*modules.values(), x)
        torch.testing.assert_close(found, torch.relu(modules["norm"](modules["convolution"](x))))
        joins.join(modules["convolution"], modules["norm"], x, x)
    assert len(seen) == (1 if place == "relu" else 3)
    # as in torchvision's block, the sum takes the norm's memory
    assert all(torch.equal(now, then) for now, then in (seen if place != "norm" else seen[:2]))


def test_watched_norms_are_called() -> None:
    norm, seen = nn.BatchNorm2d(8).eval(), []
    norm.register_forward_hook(lambda *_: seen.append(True))
    with torch.no_grad():
        joins.join(nn.Identity(), norm, clip(1, 8, 2, 2, dtype=torch.float32), clip(1, 8, 2, 2, dtype=torch.float32))
    assert seen


# ---------------------------------------------------------------------------------------------------------------------
# the network's own memory


def plain(model: TemporalResNet) -> TemporalResNet:
    """The same network with every module watched: nothing is overwritten, every small module is called."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("arch", ["tin_resnet50", "tsm_resnet50", "tsn_resnet50", "tin_resnet18"])
def test_networks_give_the_same_whether_or_not_they_use_their_own_memory(
    arch: str, layout: torch.memory_format
) -> None:
    torch.manual_seed(3)
    model = tin.build_model(arch, 5, num_segments=4, dropout=0.0).double().to(memory_format=layout)
    other = plain(model)
    frames = clip(8, 3, 48, 40, layout=layout)
    for mode in (True, False):
        results = []
        for network in (model.train(mode), other.train(mode)):
            network.zero_grad()
            x = frames.clone(memory_format=torch.preserve_format).requires_grad_()
            logits = network(x)
            logits.square().sum().backward()
            with torch.no_grad():
                again = network.eval()(frames)
            results.append([logits, x.grad, again, *(p.grad for p in network.parameters())])
            network.train(mode)
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", ["tin", "tsm"])
def test_what_a_hook_has_seen_stays_as_it_was(mode: str, kind: str) -> None:
    """What somebody keeps, of a block, a stage or a module in them, is never used as scratch afterwards."""
    model = tin.build_model(f"{kind}_resnet50", 5, num_segments=4).to(memory_format=torch.channels_last)
    model.train(mode == "train")
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep_output(name: str) -> Any:
        return lambda module, args, out: kept.update({name: (out, out.detach().clone())})

    def keep_input(name: str) -> Any:
        return lambda module, args: kept.update({f"{name}, input": (args[0], args[0].detach().clone())})

    for name in ("layer1", "layer1.0", "layer2.3", "layer3.2", "layer3.3", "layer4"):
        model.get_submodule(name).register_forward_hook(keep_output(name))
    for name in (
        "layer1.1.tin",
        "layer3",
        "layer3.0.tin",
        "layer3.5.tin",
        "layer4.0.downsample.0",
        "layer4.0",
        "layer4.2",
    ):
        model.get_submodule(name).register_forward_pre_hook(keep_input(name))
    with torch.set_grad_enabled(mode == "train"):
        model(clip(4, 3, 64, 64, dtype=torch.float32))
    assert len(kept) == 13
    for name, (now, then) in kept.items():
        assert torch.equal(now, then), name


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_between_stages_too_memory_is_used_again(mode: str) -> None:
    """The three inputs of stages that one of ours has made are shifted where they are; the first stage's is the stem's."""
    model = tin.build_model("tin_resnet50", 5, num_segments=4).to(memory_format=torch.channels_last)
    model.train(mode == "train")
    fresh: list[bool] = []

    def spy(module: nn.Module) -> None:
        take = module.forward

        def forward(x: Tensor, *rest: Any) -> Any:
            branches = take(x, *rest)
            fresh.append(branches.branch.data_ptr() != x.data_ptr())
            return branches

        module.forward = forward  # not a hook: a watched module's input is left alone

    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        spy(stage[0].tin)
    with torch.set_grad_enabled(mode == "train"):
        model(clip(4, 3, 64, 64, dtype=torch.float32))
    assert fresh == [mode == "train", False, False, False]


def test_the_callers_frames_and_a_blocks_input_are_left_alone() -> None:
    model = tin.build_model("tin_resnet50", 5, num_segments=4).eval().to(memory_format=torch.channels_last)
    frames, x = clip(4, 3, 64, 64, dtype=torch.float32), clip(4, 256, 8, 8, dtype=torch.float32)
    before, x_before = frames.clone(), x.clone()
    with torch.inference_mode():
        model(frames)
        model.layer1[1](x)
        model.layer1(x[:, :64].contiguous(memory_format=torch.channels_last))
    assert torch.equal(frames, before)
    assert torch.equal(x, x_before)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    """A wrapped block (activation checkpointing) keeps its input to run again: nobody may have overwritten it."""
    from torch.utils.checkpoint import checkpoint

    class Again(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = checkpoint(self.block, x, use_reentrant=False)
            return result

    torch.manual_seed(0)
    model = (
        tin.build_model("tin_resnet18", 5, num_segments=4, dropout=0.0).double().to(memory_format=torch.channels_last)
    )
    other = copy.deepcopy(model)
    for stage in (other.layer1, other.layer3):
        stage[1] = Again(stage[1])
    frames = clip(4, 3, 48, 48)
    for network in (model, other):
        network(frames).sum().backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)


def test_little_is_kept_for_the_backward_pass() -> None:
    """Beyond what the plain network keeps: a third, at most, of what the op's reference costs (a pure-PyTorch TIN)."""
    from tin.bench.memory import saved_by_network, saved_by_reference
    from tin.bench.workload import Workload

    work = Workload(arch="tin_resnet50", batch_size=1, num_segments=8, input_size=64, num_classes=5)
    ours = saved_by_network(work, "tin_resnet50") - saved_by_network(work, "tsn_resnet50")
    assert 0 < ours < 0.35 * saved_by_reference(work, "tin_resnet50")


def test_the_plain_networks_block_takes_its_input_twice() -> None:
    x = clip(1, 4, 2, 2)
    assert all(part is x for part in NoInterlace()(x)[:2])
