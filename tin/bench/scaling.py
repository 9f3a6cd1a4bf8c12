"""What N GPUs reach together, computed: bytes that a step exchanges, the time they take, and what of it backward hides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tin.models.inspect import multiply_adds
from tin.models.resnet import TemporalResNet

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Bytes at which DDP begins to send: its first bucket, and the others (torch's defaults)."""
COUNTS = (8, 64, 512)
"""GPUs that the table predicts."""


@dataclass(frozen=True)
class Link:
    """A way between processes.

    Attributes:
        gigabits: line rate per second and direction: of each GPU inside a node, of the whole node between nodes.
        reach: part of the line rate that an all-reduce of large buckets gets.
        latency: seconds of each of the steps of an all-reduce.
    """

    name: str
    gigabits: float
    latency: float
    reach: float = 0.8

    @property
    def bytes_per_second(self) -> float:
        """What a bucket travels at."""
        return self.gigabits * self.reach / 8 * 1e9


@dataclass(frozen=True)
class Cluster:
    """Nodes of some GPUs each.

    Attributes:
        inside: between the GPUs of a node.
        between: between nodes; None where there is but one.
    """

    inside: Link
    between: Link | None = None
    gpus_per_node: int = 8


NVLINK = Link("NVLink", 3600, 3e-6)
"""NVLink 4 of an H100 or H200: 900 GB/s a GPU, both directions together."""
NETWORKS = (
    Link("InfiniBand 8 × 400 Gb/s", 3200, 5e-6),
    Link("InfiniBand 400 Gb/s", 400, 5e-6),
    Link("Ethernet 100 Gb/s", 100, 30e-6),
    Link("Ethernet 25 Gb/s", 25, 30e-6),
)
"""Between nodes, of a whole node."""


@dataclass(frozen=True)
class Bucket:
    """Gradients that DDP sends together.

    Attributes:
        bytes: on the wire.
        ready: part of the backward pass after which the last of them is there.
    """

    bytes: float
    ready: float


@dataclass(frozen=True)
class Step:
    """A training step of one GPU by itself, and what it has to exchange when it is one of several.

    Attributes:
        seconds: of the whole step.
        buckets: in the order in which they are sent.
        settled: bytes that are exchanged when backward is over: BatchNorm's running statistics.
        backward: part of the step that is backward pass.
        forward: part of the step before it. What is left is clipping and the optimizer.
        jitter: standard deviation of a step's time from GPU to GPU, as a part of it. All wait for the slowest.
        overlap: whether the exchange goes on beside the backward pass; not where both want the same processor.
    """

    seconds: float
    buckets: Sequence[Bucket]
    settled: float = 0.0
    forward: float = 0.32
    backward: float = 0.64
    jitter: float = 0.01
    overlap: bool = True


@dataclass(frozen=True)
class Prediction:
    """Times in seconds, and the part of N times one GPU's speed that N reach."""

    processes: int
    exchange: float
    """All that a step sends, if nothing were hidden behind the backward pass."""
    exposed: float
    """What the step waits for."""
    waiting: float
    """For the slowest of the processes."""
    step: float
    efficiency: float


def predict(step: Step, processes: int, cluster: Cluster) -> Prediction:
    """A step of `processes` GPUs, each with the batch that one has alone (weak scaling).

    Bucket after bucket is sent, each when the one before has arrived and its gradients are there; the optimizer waits for the last.
    The slowest of N equal processes, whose times are normally distributed, is near σ·√(2·ln N) behind the mean.
    """
    times = [all_reduce_seconds(bucket.bytes, processes, cluster) for bucket in step.buckets]
    settling = all_reduce_seconds(step.settled, processes, cluster) if step.settled else 0.0
    exchange = sum(times) + settling
    exposed = exchange
    if step.overlap:
        start, end = step.forward * step.seconds, (step.forward + step.backward) * step.seconds
        sent = start
        for bucket, seconds in zip(step.buckets, times, strict=True):
            sent = max(sent, start + bucket.ready * (end - start)) + seconds
        exposed = max(0.0, sent - end) + settling
    waiting = step.jitter * step.seconds * math.sqrt(2 * math.log(processes))
    total = step.seconds + exposed + waiting
    return Prediction(processes, exchange, exposed, waiting, total, step.seconds / total)


def all_reduce_seconds(size: float, processes: int, cluster: Cluster) -> float:
    """Time to sum `size` bytes over all processes: in each node every GPU gathers its part of the node's sum, the nodes sum
    these parts, and in each node the parts go round again.

    A ring of n sends 2·(n−1)/n of the bytes through every link, in 2·(n−1) steps; two binary trees send 2 times the bytes in 2·log₂ n
    steps. NCCL takes what is faster, and so does this. The GPUs of a node share its way out.

    Raises:
        ValueError: more processes than a node has, and no way between nodes, or nodes that are not full.
    """
    if processes <= cluster.gpus_per_node:
        return _sum_over(size, processes, cluster.inside)
    nodes, rest = divmod(processes, cluster.gpus_per_node)
    if rest or cluster.between is None:
        raise ValueError(
            f"{processes} processes are no whole nodes of {cluster.gpus_per_node} with a network between them"
        )
    return _sum_over(size, cluster.gpus_per_node, cluster.inside) + _sum_over(size, nodes, cluster.between)


def gradient_buckets(model: TemporalResNet, input_size: int, bytes_per_value: int = 4) -> list[Bucket]:
    """The buckets in which DDP sends the gradients of a model, and when in the backward pass each is full.

    Gradients come in the reverse order of the layers; DDP packs them in that order and sends a bucket once it has grown past
    its size, which counts float32, whatever is sent. The backward pass is taken to spend its time where the multiply-adds are:
    a layer's gradients are there when its own are computed. Norms have none of their own and come with the convolution before.

    Args:
        model: on any device.
        input_size: side of the frames.
        bytes_per_value: 4; 2 with `train.grad_compression = "bf16"`.
    """
    costs = multiply_adds(model, input_size)
    total = sum(costs.values())
    buckets: list[Bucket] = []
    done, values, limit = 0, 0, FIRST_BUCKET
    for name, parameter in reversed(list(model.named_parameters())):
        if not parameter.requires_grad:
            continue
        done += costs.pop(name.rpartition(".")[0], 0)
        values += parameter.numel()
        if 4 * values >= limit:
            buckets.append(Bucket(values * bytes_per_value, done / total))
            values, limit = 0, BUCKET
    if values:
        buckets.append(Bucket(values * bytes_per_value, done / total))
    return buckets


def settled_bytes(model: TemporalResNet) -> int:
    """Bytes of the BatchNorm statistics that the processes average at each step (`tin.train.norm_stats`)."""
    return sum(4 * buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())


def table(
    model: TemporalResNet, clips_per_second: Sequence[float], batch_sizes: Sequence[int], input_size: int = 224
) -> str:
    """Predicted efficiency at 8, 64 and 512 GPUs, in nodes of eight, as a Markdown table.

    Args:
        model: whose gradients are exchanged.
        clips_per_second: of one GPU alone; three columns each.
        batch_sizes: clips of one GPU in a step.
        input_size: side of the frames.
    """
    heads = [f"{count} GPUs of {rate:g} clips/s" for rate in clips_per_second for count in COUNTS]
    lines = [
        _line(["batch", "between nodes", "gradients", *heads]),
        _line(["---:", "---", "---", *["---:"] * len(heads)]),
    ]
    for batch in batch_sizes:
        for network in NETWORKS:
            for kind, size in (("fp32", 4), ("bf16", 2)):
                buckets, cluster = gradient_buckets(model, input_size, size), Cluster(NVLINK, network)
                steps = [Step(batch / rate, buckets, settled_bytes(model)) for rate in clips_per_second]
                found = [predict(step, count, cluster).efficiency for step in steps for count in COUNTS]
                lines.append(_line([str(batch), network.name, kind, *(f"{100 * part:.0f} %" for part in found)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sum_over(size: float, members: int, link: Link) -> float:
    if members == 1:
        return 0.0
    ring = 2 * (members - 1) / members * size / link.bytes_per_second + 2 * (members - 1) * link.latency
    trees = 2 * size / link.bytes_per_second + 2 * math.ceil(math.log2(members)) * link.latency
    return min(ring, trees)
