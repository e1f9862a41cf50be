"""Who is who: ids of experiments and runs, and the random streams that follow from them.

An experiment is its canonical content and its id a 128-bit hash of it; a run is (experiment,
repetition). Nothing that cannot change a stored number enters the id, so the same run asked for
twice, by two sweeps or after a kill, is recognised and done once.

Random numbers come from the id, never from a rank, a clock or an order: `SeedSequence` mixes
[the id's four words, the repetition, the stream, the root seed], the id before the root seed as
NumPy's guide on parallel generation asks.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

ID_VERSION = 2
"""Enters every id; raised when the same content would give other numbers than before.

2: `exp` and `log` of our own, and sums over a batch in another order.
"""

STREAMS: tuple[str, ...] = ("split", "init", "shuffle", "label_noise", "perturbation")
"""Independent streams of a run: drawing more from one never shifts another."""


ABSENT = object()
"""Among the values of a column: content without this entry."""


def experiment_id(content: Mapping[str, Any]) -> str:
    """128-bit hash, as 32 hexadecimal digits, of an experiment's canonical content.

    Parameters
    ----------
    content : plain values (text, numbers, lists, None); the order of keys does not matter, and
        1e-4 and 0.0001 are the same number.
    """
    columns = {key: ([value], np.zeros(1, np.int64)) for key, value in content.items()}
    return experiment_ids(columns)[0]


def experiment_ids(columns: Mapping[str, tuple[Sequence[Any], np.ndarray]]) -> list[str]:
    """Ids of many experiments, of which every entry has few values.

    Parameters
    ----------
    columns : for every key of the content its values, of which one may be `ABSENT`, and for every
        experiment which of them it has: an integer array of shape (n_experiments,).
    """
    n_experiments = len(next(iter(columns.values()))[1])
    version = ([ID_VERSION], np.zeros(n_experiments, np.int64))
    parts: list[Iterable[bytes]] = []
    constant = b"{"
    for key, (values, codes) in sorted({**columns, "id_version": version}.items()):
        fragments = [_fragment(key, value) for value in values]
        if len(set(fragments)) == 1:
            constant += fragments[0]
            continue
        texts = np.array([constant + fragment for fragment in fragments], object)
        parts.append(texts[codes].tolist())
        constant = b""
    parts.append(repeat(constant, n_experiments))
    # The last entry has a comma too many.
    rows = (b"".join(row)[:-1] + b"}" for row in zip(*parts, strict=True))
    return [hashlib.blake2b(row, digest_size=16).hexdigest() for row in rows]


def _fragment(key: str, value: Any) -> bytes:
    """An entry of the canonical text, which is JSON with sorted keys and no blanks."""
    if value is ABSENT:
        return b""
    entry = json.dumps({key: value}, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return entry[1:-1].encode() + b","


def run_id(experiment: str, repetition: int) -> str:
    """Id of a run: the experiment's id and the number of the repetition, from 0."""
    return f"{experiment}-{repetition:04d}"


def random_stream(
    experiment: str, repetition: int, stream: str, root_seed: int
) -> np.random.Generator:
    """The generator (PCG64) of one stream of one run.

    Parameters
    ----------
    experiment : id from `experiment_id`.
    repetition : number of the repetition, from 0.
    stream : one of `STREAMS`.
    root_seed : the specification's `seed`.
    """
    words = [int(experiment[start : start + 8], 16) for start in range(0, 32, 8)]
    entropy = [*words, repetition, STREAMS.index(stream), root_seed]
    return np.random.default_rng(np.random.SeedSequence(entropy))
