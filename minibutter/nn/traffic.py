"""What an epoch computes, keeps and moves: flops, working sets, bytes between the caches.

Nothing is measured here: bytes are predicted from the rung, its tiling, the widths, the batch and
the sizes of the caches, with the reasoning of `loops` for the products, and one pass over their
arrays for all else: the gathering of rows, activations, skips, the loss and its gradient, the
metrics, the penalty, the optimizer; training, and evaluation of the test set and, if it is asked
for, of the training set. Prefetching moves the same lines earlier and is no part of it. A metric
is counted as one pass over outputs and targets, which for narrow networks is too little.

It is the traffic of a single run. That of repetitions packed in lanes, and of BLAS, is not known.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minibutter.nn.kernels.layout import count_blocks, lanes_of
from minibutter.nn.kernels.metrics import N_METRICS
from minibutter.nn.kernels.tile import LINE_BYTES
from minibutter.nn.loops import Cache, Margin, Touched, follow
from minibutter.nn.network import Network
from minibutter.nn.product_loops import Effect, Kernel, Product, product_effect

PREDICTED_RUNGS = ("naive", "blocked", "tiled")


@dataclass(frozen=True)
class Workload:
    """What is done in an epoch.

    Attributes
    ----------
    network : what is trained.
    n_train, n_test : rows.
    batch_size : rows of a step, at most n_train.
    optimizer : "adam", "rmsprop" or "sgd".
    evaluate_train : whether the training set is evaluated, too.
    has_penalty : whether l1 or l2 is positive.
    """

    network: Network
    n_train: int
    n_test: int
    batch_size: int
    optimizer: str = "adam"
    evaluate_train: bool = False
    has_penalty: bool = False

    @property
    def flops(self) -> float:
        """Of an epoch's matrix products: two for every product of numbers that is added."""
        forward = 2 * sum(rows * columns for rows, columns in self._weights())
        inner = 2 * sum((rows - 1) * columns for rows, columns in self._weights()[1:])
        evaluated = self.n_test + (self.n_train if self.evaluate_train else 0)
        return float(self.n_train * (2 * forward + inner) + evaluated * forward)

    def _weights(self) -> list[tuple[int, int]]:
        """Rows, with that of the biases, and columns of every layer's weights."""
        network = self.network
        fan_in = (network.n_inputs, *network.widths[:-1])
        return [(n + 1, width) for n, width in zip(fan_in, network.widths, strict=True)]

    @property
    def working_sets(self) -> dict[str, int]:
        """The four of BUTTER-E in bytes, all on one core.

        `bwd_layer`: what a layer takes in and puts out for a batch, the largest pair; `parameter`:
        this and all parameters; `parameter2x`: parameters, their gradients, and the units of all
        layers for a batch; `parameter2x_dataset`: this and all rows of the data set. Inputs are
        counted as encoded, where BUTTER-E took the columns of the raw data.
        """
        network, size = self.network, LINE_BYTES // lanes_of(self.network.dtype)
        units = (network.n_inputs, *network.widths)
        pair = max(a + b for a, b in itertools.pairwise(units))
        layer = size * self.batch_size * pair
        parameters = size * network.num_parameters
        twice = 2 * parameters + size * self.batch_size * sum(units)
        rows = self.n_train + self.n_test
        return {
            "parameter": parameters + layer,
            "parameter2x": twice,
            "parameter2x_dataset": twice + size * rows * (network.n_inputs + network.n_outputs),
            "bwd_layer": layer,
        }


class Phase(NamedTuple):
    """A part of a step.

    Attributes
    ----------
    name : what is done.
    layer : number of the layer, from 0; None for what is done once.
    effect : on caches.
    flops : of its products.
    """

    name: str
    layer: int | None
    effect: Effect
    flops: int = 0


@dataclass(frozen=True)
class PhaseTraffic:
    """Bytes that a part of an epoch moves.

    Attributes
    ----------
    name, layer : as of `Phase`.
    flops : of an epoch.
    bytes : between processor and first level, first and second, ..., last and memory.
    """

    name: str
    layer: int | None
    flops: float
    bytes: tuple[float, ...]


@dataclass(frozen=True)
class Traffic:
    """Bytes that an epoch moves.

    Attributes
    ----------
    phases : part by part.
    margin : by level, how many times larger or smaller than the cache the nearest working set is
        that decided; 2 and more: within 10 % of a simulated cache.
    """

    phases: tuple[PhaseTraffic, ...]
    margin: tuple[float, ...]

    @property
    def bytes(self) -> tuple[float, ...]:
        """Of the epoch, as in `PhaseTraffic`."""
        return tuple(map(sum, zip(*(phase.bytes for phase in self.phases), strict=True)))


def predict_epoch(
    workload: Workload, caches: Sequence[Cache], cache_state: str = "warm"
) -> Traffic:
    """Bytes that an epoch moves between the levels.

    Parameters
    ----------
    workload : what is done.
    caches : levels from the processor downwards.
    cache_state : "warm": as the epoch before has left them; "cold": empty.

    Raises
    ------
    ValueError
        If the rung's traffic is not known.
    """
    kernel = workload.network.kernel
    if kernel not in PREDICTED_RUNGS:
        raise ValueError(
            f"kernel is {kernel!r}; traffic can be predicted of {', '.join(PREDICTED_RUNGS)}"
        )
    moved = [_EpochMoves(workload, cache, cache_state) for cache in caches]
    phases = tuple(
        PhaseTraffic(
            name,
            layer,
            flops,
            (l1_bytes, *(LINE_BYTES * level.lines[name, layer] for level in moved)),
        )
        for (name, layer), (flops, l1_bytes) in moved[0].work.items()
    )
    return Traffic(phases, tuple(level.margin.factor for level in moved))


class _EpochMoves:
    """An epoch on one level: batches of several kinds, each so many times.

    Attributes
    ----------
    work : flops and bytes that the processor moves, by name and layer of a phase.
    lines : that are fetched and written back, by name and layer.
    margin : of all that was decided.
    """

    def __init__(self, workload: Workload, cache: Cache, cache_state: str) -> None:
        self.margin = Margin()
        self.work: dict[tuple, tuple[float, float]] = {}
        self.lines: dict[tuple, float] = {}
        kinds = _batches(workload, cache)
        everything: dict[str, float] = {}
        for phases, count in kinds:
            for phase in phases:
                self.margin.factor = min(self.margin.factor, phase.effect.margin)
                for array, touched in phase.effect.touched.items():
                    is_row = array.startswith(_ROWS)
                    lines = touched.lines * (count if is_row else 1)
                    everything[array] = max(everything.get(array, 0.0), lines)
        total = sum(everything.values())
        history = [phase for phases, _ in kinds for phase in phases]
        fits = cache_state == "warm" and total <= cache.lines
        for position, (phases, count) in enumerate(kinds):
            before = history if cache_state == "warm" or position else []
            first = self._follow(phases, cache, before)
            again = self._follow(phases, cache, phases) if count > 1 else first
            for phase, once, more in zip(phases, first, again, strict=True):
                key, effect = phase[:2], phase.effect
                flops, l1_bytes = self.work.get(key, (0.0, 0.0))
                moved = count * (effect.read_bytes + effect.written_bytes)
                self.work[key] = flops + count * phase.flops, l1_bytes + moved
                lines = 0.0 if fits else once + (count - 1) * more
                self.lines[key] = self.lines.get(key, 0.0) + lines
        if cache_state == "warm":
            self.margin.note(total, cache.lines, 1.0, 1.0)

    def _follow(
        self, phases: Sequence[Phase], cache: Cache, before: Sequence[Phase]
    ) -> list[float]:
        """Lines moved by each phase."""
        rows = follow(
            [phase.effect.touched for phase in phases],
            cache,
            self.margin,
            [
                {name: use for name, use in phase.effect.touched.items() if name[0] != _ROWS}
                for phase in before
            ],
        )
        return [sum(map(sum, row.values())) for row in rows]


_ROWS = "@"
"""Begins the names of data sets: a batch touches rows that no other batch of the epoch touches."""


def _batches(workload: Workload, cache: Cache) -> list[tuple[list[Phase], int]]:
    """Kinds of batches in the order of an epoch, and how many there are of each."""
    kinds = []
    sets = [("train", workload.n_train, True), ("test", workload.n_test, False)]
    if workload.evaluate_train:
        sets.append(("train", workload.n_train, False))
    for name, n_rows, trains in sets:
        count, rest = divmod(n_rows, workload.batch_size)
        for n, times in ((workload.batch_size, count), (rest, 1)):
            if n and times:
                kinds.append((_Batch(workload, cache, name, n).phases(trains), times))
    return kinds


class _Batch:
    """The phases of a batch of n rows, forward and backward, as `epoch.train_epoch` does them."""

    def __init__(self, workload: Workload, cache: Cache, data: str, n: int) -> None:
        network = workload.network
        self.workload, self.network, self.cache, self.data, self.n = (
            *(workload, network, cache, data, n),
        )
        self.size = LINE_BYTES // lanes_of(network.dtype)
        self.blocks = count_blocks(n, network.dtype)
        self.kernel = Kernel(network.kernel, network.tiling.resolved(network.dtype))
        self.is_relu = network.activation == "relu"
        self.last = network.depth - 1
        self.done: list[Phase] = []

    def phases(self, trains: bool) -> list[Phase]:
        self._gather()
        for layer in range(self.network.depth):
            self._forward(layer)
        outputs = self._units(self.network.n_outputs)
        rows = self.blocks * LINE_BYTES
        results = {"logits": outputs, "p": outputs, "row values": rows, "scratch": 4 * rows}
        self._pass("loss", None, {"output blocks": outputs, "y": outputs}, results)
        self._pass("metrics", None, {"p": outputs, "y": outputs}, {"row values": N_METRICS * rows})
        weights = self._weights()
        if self.workload.has_penalty:
            self._pass("penalty", None, weights, {})
        if not trains:
            return self.done
        gradient = {"dz out": outputs, "output blocks": outputs}
        self._pass("loss", None, {"p": outputs, "y": outputs}, gradient)
        for layer in range(self.last, -1, -1):
            self._product("backward_parameters", layer)
            if layer > 0:
                self._backward_input(layer)
        gradient = {f"d{name}": n_bytes for name, n_bytes in weights.items()}
        if self.workload.has_penalty:
            self._pass("penalty", None, weights | gradient, gradient)
        slots = ["slot 0"] if self.workload.optimizer == "sgd" else ["slot 0", "slot 1"]
        memory = dict.fromkeys(slots, float(sum(weights.values())))
        self._pass("update", None, weights | gradient | memory, weights | memory)
        return self.done

    def _units(self, width: int) -> int:
        """Bytes of so many units for the batch."""
        return self.blocks * width * LINE_BYTES

    def _weights(self) -> dict[str, float]:
        """Bytes of the weights of every layer."""
        return {
            f"w{layer}": float((fan_in + 1) * fan_out * self.size)
            for layer, (fan_in, fan_out) in enumerate(self._fans())
        }

    def _fans(self) -> list[tuple[int, int]]:
        widths = self.network.widths
        return list(zip((self.network.n_inputs, *widths[:-1]), widths, strict=True))

    def _pass(
        self, name: str, layer: int | None, reads: Mapping[str, float], writes: Mapping[str, float]
    ) -> None:
        """One walk over arrays, side by side: bytes by array."""
        lines = {
            array: max(reads.get(array, 0), writes.get(array, 0)) / LINE_BYTES
            for array in {**reads, **writes}
        }
        window = sum(lines.values())
        touched = {
            array: Touched(n, n, n if array in writes else 0.0, window)
            for array, n in lines.items()
        }
        moved = sum(reads.values()), sum(writes.values())
        self.done.append(Phase(name, layer, Effect(touched, *moved, float("inf"))))

    def _gather(self) -> None:
        network, n, data = self.network, self.n, self.data
        inputs, outputs = n * network.n_inputs * self.size, n * network.n_outputs * self.size
        target = self._units(network.n_outputs)
        self._pass(
            "gather",
            None,
            {f"{_ROWS}x {data}": inputs, f"{_ROWS}y {data}": outputs, f"{_ROWS}order {data}": 8 * n}
            | {"output blocks": target},
            {"x": self._units(network.n_inputs), "output blocks": target, "y": target},
        )

    def _below(self, layer: int) -> str:
        return "x" if layer == 0 else f"h{layer - 1}"

    def _dz(self, layer: int) -> str:
        # Layers take turns in the same memory, see `arena.work_half`.
        return "output blocks" if layer == self.last else f"dz {layer % 2}"

    def _product(self, name: str, layer: int, epilogue: str = "plain", **names: str) -> None:
        fan_in, fan_out = self._fans()[layer]
        product = Product(name, fan_in, fan_out, self.n, self.network.dtype, epilogue)
        effect = product_effect(product, self.kernel, self.cache)
        if name == "backward_parameters":
            names = {"x": self._below(layer), "y": self._dz(layer), "c": f"dw{layer}"}
        renamed = {names.get(array, array): use for array, use in effect.touched.items()}
        self.done.append(Phase(name, layer, effect._replace(touched=renamed), product.flops))

    def _forward(self, layer: int) -> None:
        below, skips = self._below(layer), self.network.skip[layer]
        names = {"a": f"w{layer}", "b": below}
        if layer == self.last:
            self._product("forward", layer, **names, c="output blocks")
            return
        units = self._units(self.network.widths[layer])
        activated = f"a{layer}" if skips else f"h{layer}"
        if self.is_relu:
            self._product("forward", layer, "relu", **names, c=activated)
        else:
            self._product("forward", layer, **names, c=f"z{layer}")
            self._pass("activation", layer, {f"z{layer}": units}, {activated: units})
        if skips:
            self._pass("skip", layer, {activated: units, below: units}, {f"h{layer}": units})

    def _backward_input(self, layer: int) -> None:
        names = {"a": f"w{layer}", "b": self._dz(layer)}
        skips, units = self.network.skip, self._units(self.network.widths[layer - 1])
        dz, activated = (
            self._dz(layer - 1),
            f"a{layer - 1}" if skips[layer - 1] else f"h{layer - 1}",
        )
        if self.is_relu and not any(skips):
            self._product("backward_input", layer, "relu_mask", **names, c=dz, gate=activated)
            return
        dh, dh_above = f"dh {(layer - 1) % 2}", f"dh {layer % 2}"
        self._product("backward_input", layer, **names, c=dh)
        if skips[layer]:
            self._pass("skip", layer, {dh: units, dh_above: units}, {dh: units})
        kept = {activated: units} if self.is_relu else {f"z{layer - 1}": units, activated: units}
        self._pass("activation", layer, {dh: units} | kept, {dz: units})
