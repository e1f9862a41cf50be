"""How long a training step takes: our kernels beside the NumPy reference and, if there, PyTorch.

`python -m bench.step` first checks that all sides make the same 16 steps, then times them in turns
on one pinned core and prints medians; compilation is not in the times. Batch 256, Adam,
softmax cross-entropy, 4096 rows of 64 inputs. Our step includes the ten running metrics, theirs do
not. `--readme` writes the table between the markers of README.md, from the JSON just measured.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minibutter.nn import reference
from minibutter.nn.network import Network
from minibutter.nn.training import Trainer, TrainingData, make_optimizer
from minibutter.provenance import read_provenance

HIDDEN = ((4, 4), (16, 16), (32,) * 3, (64,) * 3, (256,) * 3, (16,) * 18)
N_INPUTS, N_OUTPUTS, N_ROWS, BATCH_SIZE, LEARNING_RATE = 64, 10, 4096, 256, 1e-3
STEPS = N_ROWS // BATCH_SIZE
FOLDER = Path(__file__).parent
JSON = FOLDER / "results" / "step.json"
MARKERS = "<!-- table: bench.step -->", "<!-- end of table -->"

Side = Callable[[int], np.ndarray]
"""Makes that many steps and returns the flat parameters."""


def make_data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (4096, 64) and one-hot targets (4096, 10), float32."""
    x = rng.standard_normal((N_ROWS, N_INPUTS)).astype(np.float32)
    y = np.eye(N_OUTPUTS, dtype=np.float32)[rng.integers(0, N_OUTPUTS, N_ROWS)]
    return x, y


class InOrder:
    """A shuffle that leaves rows in their order, so that all sides see the same batches."""

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)


def minibutter_side(network: Network, start: np.ndarray, x: np.ndarray, y: np.ndarray) -> Side:
    """Our kernels; whole epochs in one call, so steps come in multiples of an epoch's."""
    few = TrainingData(x, y, x[:1], y[:1])
    trainer = Trainer(
        network,
        start.copy(),
        make_optimizer("adam", LEARNING_RATE),
        few,
        batch_size=BATCH_SIZE,
        shuffle=InOrder(),
    )

    def run(steps: int) -> np.ndarray:
        for _ in range(steps // STEPS):
            trainer.run_epoch()
        return trainer.parameters

    return run


def naive_side(network: Network, start: np.ndarray, x: np.ndarray, y: np.ndarray) -> Side:
    """Our kernels on the textbook's matrix product."""
    return minibutter_side(replace(network, kernel="naive"), start, x, y)


def numpy_side(network: Network, start: np.ndarray, x: np.ndarray, y: np.ndarray) -> Side:
    """The reference, with NumPy's BLAS on one thread."""
    w = start.copy()
    optimizer = reference.Adam(np.float32(LEARNING_RATE))
    state = {"step": 0}

    def run(steps: int) -> np.ndarray:
        nonlocal w
        for _ in range(steps):
            rows = slice(
                state["step"] % STEPS * BATCH_SIZE, (state["step"] % STEPS + 1) * BATCH_SIZE
            )
            layers = [(network.weights(w, k), network.biases(w, k)) for k in range(network.depth)]
            pairs = reference.backward(
                layers, network.skip, "relu", "classification", x[rows], y[rows]
            )
            dw = np.concatenate([part.ravel() for pair in pairs for part in pair])
            w = optimizer.update(w, dw).astype(np.float32)
            state["step"] += 1
        return w

    return run


def torch_side(network: Network, start: np.ndarray, x: np.ndarray, y: np.ndarray) -> Side:
    """PyTorch, eager, with the fused Adam."""
    import torch

    torch.set_num_threads(1)
    modules: list[torch.nn.Module] = []
    for layer in range(network.depth):
        w, b = network.weights(start, layer), network.biases(start, layer)
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b.copy()))
        modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y.argmax(axis=1))
    state = {"step": 0}

    def run(steps: int) -> np.ndarray:
        for _ in range(steps):
            first = state["step"] % STEPS * BATCH_SIZE
            optimizer.zero_grad(set_to_none=True)
            logits = model(rows[first : first + BATCH_SIZE])
            loss = torch.nn.functional.cross_entropy(logits, labels[first : first + BATCH_SIZE])
            loss.backward()
            state["step"] += 1
            # Keras' "epsilon hat", which is added before bias correction, in PyTorch's terms.
            optimizer.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** state["step"])
            optimizer.step()
        flat = [
            part
            for linear in model[::2]
            for part in (linear.weight.detach().numpy().T.ravel(), linear.bias.detach().numpy())
        ]
        return np.concatenate(flat)

    return run


def measure(hidden: tuple[int, ...], rounds: int) -> dict:
    """Check agreement, then time all sides in turns; microseconds a step."""
    rng = np.random.default_rng(0)
    x, y = make_data(rng)
    network = Network(N_INPUTS, (*hidden, N_OUTPUTS), "classification")
    start = network.initial_parameters("glorot_uniform", rng)
    makers = {"minibutter": minibutter_side, "naive": naive_side, "numpy": numpy_side}
    try:
        import torch  # noqa: F401

        makers["pytorch"] = torch_side
    except ImportError:
        pass
    sides = {name: make(network, start, x, y) for name, make in makers.items()}
    ends = {name: run(STEPS) for name, run in sides.items()}
    moved = np.linalg.norm(ends["minibutter"] - start)
    for name, end in ends.items():
        # Adam divides a rounding error in a gradient near 0 by that gradient; 18 layers show it.
        difference = np.linalg.norm(end - ends["minibutter"]) / moved
        assert difference < 5e-3, f"{name} went elsewhere: {difference:.2e} of the way"
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            begun_s = time.perf_counter()
            run(STEPS)
            times[name].append((time.perf_counter() - begun_s) / STEPS * 1e6)
    medians = {f"{name}_us": float(np.median(values)) for name, values in times.items()}
    ratios = {
        f"{name}_ratio_quartiles": np.percentile(
            np.array(values) / np.array(times["minibutter"]), [25, 50, 75]
        ).tolist()
        for name, values in times.items()
        if name != "minibutter"
    }
    return {"widths": [*hidden, N_OUTPUTS], "num_parameters": network.num_parameters,
            **medians, **ratios}  # fmt: skip


def as_markdown(document: dict) -> str:
    """The table of the README."""
    lines = [
        "| widths after 64 inputs | parameters | minibutter | its naive rung | NumPy | PyTorch "
        "| PyTorch / minibutter |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in document["networks"]:
        *hidden, outputs = row["widths"]
        name = f"{hidden[0]} x {len(hidden)}, {outputs}"
        pytorch = f"{row['pytorch_us']:.0f}" if "pytorch_us" in row else "-"
        ratio = row.get("pytorch_ratio_quartiles")
        spread = f"{ratio[1]:.1f} [{ratio[0]:.1f}, {ratio[2]:.1f}]" if ratio else "-"
        lines.append(
            f"| {name} | {row['num_parameters']} | {row['minibutter_us']:.0f} | "
            f"{row['naive_us']:.0f} | {row['numpy_us']:.0f} | {pytorch} | {spread} |"
        )
    machine = document["machine"]
    lines.append(
        f"\nMicroseconds a training step, medians of {document['rounds']} rounds measured in turns "
        f"on one core ({machine['cpu_model']}, Python {machine['python_version']}, "
        f"numba {machine['numba_version']}); in brackets the quartiles of the ratio. "
        "Measured and written by `python -m bench.step --readme`."
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    document = {
        "machine": {**read_provenance().columns(), "hostname": None},
        "rounds": options.rounds,
        "batch_size": BATCH_SIZE,
        "networks": [],
    }
    for hidden in HIDDEN:
        row = measure(hidden, options.rounds)
        document["networks"].append(row)
        print(
            {key: value for key, value in row.items() if not key.endswith("quartiles")}, flush=True
        )
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(document, indent=2) + "\n")
    table = as_markdown(document)
    print(table)
    if options.readme:
        readme = FOLDER.parent / "README.md"
        before, _, rest = readme.read_text().partition(MARKERS[0])
        _, _, after = rest.partition(MARKERS[1])
        readme.write_text(f"{before}{MARKERS[0]}\n{table}\n{MARKERS[1]}{after}")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
