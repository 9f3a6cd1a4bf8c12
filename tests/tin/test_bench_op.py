"""Benchmarks of the op and of memory: every shape, layout and yardstick is really computed; bytes are counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tin.test_bench import ROUNDS, SMALL, check
from tin import bench, ops
from tin.bench import shapes
from tin.bench.memory import saved_by_network, saved_by_reference
from tin.bench.peers import two_shifts_and_blend
from tin.bench.shapes import layer_shapes
from tin.bench.workload import Workload


class TestOp:
    def test_shapes_are_those_of_the_networks_blocks(self) -> None:
        shapes = layer_shapes(Workload("tsn_resnet50"))
        assert list(shapes.items()) == [
            ((64, 56, 56), 1),
            ((256, 56, 56), 3),
            ((512, 28, 28), 4),
            ((1024, 14, 14), 6),
            ((2048, 7, 7), 2),
        ]

    def test_every_shape_is_timed_both_ways_against_a_copy_and_the_reference(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, ...]] = []
        real = ops.temporal_interlace

        def counting(x: torch.Tensor, *rest: Any) -> torch.Tensor:
            if x.device.type != "meta":  # where the shapes are found out
                assert x.is_contiguous(memory_format=torch.channels_last)
                seen.append(tuple(x.shape))
            return real(x, *rest)

        monkeypatch.setattr(ops, "temporal_interlace", counting)
        result = check(bench.op(SMALL, ROUNDS, skip_compiled="not asked for"))
        assert set(seen) == {(8, 64, 8, 8), (8, 128, 4, 4), (8, 256, 2, 2), (8, 512, 1, 1)}
        assert len(result["rows"]) == 16
        forward, backward, in_place, both = result["rows"][:4]
        assert forward["name"] == "forward 64×8×8"
        assert forward["bytes"] == 2 * 8 * 64 * 64 * 4
        assert backward["bytes"] == 2.25 * 8 * 64 * 64 * 4
        assert (in_place["name"], in_place["bytes"]) == ("in place 64×8×8", 0.75 * 8 * 64 * 64 * 4)
        assert both["name"] == "both gradients 64×8×8"
        assert both["bytes"] == 3.25 * 8 * 64 * 64 * 4 + 8 * 64 * 64 / 8  # and a bit an element
        for line in result["rows"]:
            assert line["gb_per_s"] == pytest.approx(line["bytes"] / line["median"] / 1e6)
            assert line["layout"] == "channels_last"
            assert line["copy_gb_per_s"] > 0
            if line["name"].startswith(("forward", "backward")):
                assert line["reference_ratio"] > 0
                assert line["peers_ratio"] > 0
                assert (line["compiled_ratio"], line["compiled_skipped"]) == (None, "not asked for")

    def test_both_layouts_are_rows_of_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shapes, "layer_shapes", lambda work: {(16, 4, 4): 3})
        seen: set[bool] = set()
        real = ops.temporal_interlace

        def looking(x: torch.Tensor, *rest: Any) -> torch.Tensor:
            seen.add(x.is_contiguous())
            return real(x, *rest)

        monkeypatch.setattr(ops, "temporal_interlace", looking)
        result = check(bench.op(SMALL, ROUNDS, layouts=("channels_last", "contiguous"), skip_compiled="no"))
        assert seen == {True, False}
        assert [(line["name"], line["layout"]) for line in result["rows"]] == [
            ("forward 16×4×4", "channels_last"),
            ("backward 16×4×4", "channels_last"),
            ("in place 16×4×4", "channels_last"),
            ("both gradients 16×4×4", "channels_last"),
            ("forward 16×4×4, contiguous", "contiguous"),
            ("backward 16×4×4, contiguous", "contiguous"),
        ]

    @pytest.mark.slow
    def test_the_compiled_reference_is_timed_both_ways(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shapes, "layer_shapes", lambda work: {(16, 4, 4): 3})
        for line in check(bench.op(SMALL, ROUNDS))["rows"][:2]:
            assert line["compiled_ratio"] > 0
            assert line["compiled_skipped"] is None

    def test_without_a_compiler_the_row_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shapes, "layer_shapes", lambda work: {(16, 4, 4): 3})
        with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}):
            for line in check(bench.op(SMALL, ROUNDS))["rows"][:2]:
                assert line["compiled_ratio"] is None
                assert line["compiled_skipped"].startswith("torch.compile does not work here: ")

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_the_peers_way_comes_to_the_same_result_and_gradients(self, layout: torch.memory_format) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2 * 5, 32, 3, 7, generator=generator).to(memory_format=layout)
        offset = torch.tensor([[-1.7, 0.3, 2.0, -4.5], [0.0, -0.6, 1.5, 9.2]])
        weight = torch.rand(2, 5, 4, generator=generator)
        grad = torch.randn(x.shape, generator=generator)
        answers = []
        for function in (ops.temporal_interlace, two_shifts_and_blend):
            inputs = (x.clone().requires_grad_(), offset.clone().requires_grad_(), weight.clone().requires_grad_())
            out = function(*inputs, num_segments=5)
            answers.append((out, *torch.autograd.grad(out, inputs, grad)))
        for ours, theirs in zip(*answers, strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)

    def test_the_peers_way_keeps_the_type_and_gives_nchw(self) -> None:
        x = torch.randn(4, 16, 3, 3).bfloat16().to(memory_format=torch.channels_last)
        out = two_shifts_and_blend(x, torch.rand(1, 4), torch.rand(1, 4, 4), 4)
        assert out.dtype == torch.bfloat16
        assert out.is_contiguous()


class TestSaved:
    def test_storages_count_once_and_whole_and_known_ones_not(self) -> None:
        weight = torch.randn(10, 10, requires_grad=True)
        x = torch.randn(4, 20, requires_grad=True)

        def run() -> None:
            y = x[:, :10] @ weight  # keeps x, whole, and the known weight
            (y.sigmoid() * y).sum()  # keeps the sigmoid once for itself and once for the product, and y

        assert bench.saved_bytes(run, [weight]) == 4 * (4 * 20 + 4 * 10 + 4 * 10)

    def test_networks_without_temporal_modules_have_none_to_count(self) -> None:
        assert saved_by_reference(SMALL, "tsn_resnet18") == 0

    def test_temporal_modules_keep_less_in_half_precision(self) -> None:
        half = replace(SMALL, dtype="bfloat16")
        kept = [
            saved_by_network(work, "tin_resnet18") - saved_by_network(work, "tsn_resnet18") for work in (half, SMALL)
        ]
        assert 0 < kept[0] < 0.6 * kept[1]
        assert 0 < saved_by_reference(half, "tin_resnet18") < saved_by_reference(SMALL, "tin_resnet18")
