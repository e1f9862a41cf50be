"""A repetition in progress as plain arrays: all that decides its next bits.

The data are not among them, because they follow from the run's id; a digest tells whether they are
the same. Neither is a workspace: what an epoch leaves in it never enters another.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

_DIGEST_BYTES = 16
_WORD = 2**64


@dataclass(frozen=True)
class TrainingState:
    """Where a repetition stands between two epochs, the same however it was packed.

    Attributes
    ----------
    parameters : (P,), of the network's dtype.
    slots : (2, P), the optimizer's memory.
    steps : of the optimizer so far.
    epochs : done so far.
    shuffle : (6,) uint64, the generator that draws orders, from `pack_generator`.
    data : (16,) uint8, from `digest_arrays` of the data that it was trained on.
    """

    parameters: np.ndarray
    slots: np.ndarray
    steps: int
    epochs: int
    shuffle: np.ndarray
    data: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name; numbers are int64 arrays without axes."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "TrainingState":
        """The way back from `arrays`.

        Raises
        ------
        ValueError
            If an array is missing or cannot be what it is called.
        """
        missing = [field.name for field in fields(cls) if field.name not in arrays]
        if missing:
            raise ValueError(f"a state needs arrays called {', '.join(missing)}, too")
        for name, shape, dtype in (
            ("steps", (), np.int64),
            ("epochs", (), np.int64),
            ("shuffle", (6,), np.uint64),
            ("data", (_DIGEST_BYTES,), np.uint8),
        ):
            check_array(name, arrays[name], shape, dtype)
        numbers = {name: int(arrays[name]) for name in ("steps", "epochs")}
        return cls(**{field.name: arrays[field.name] for field in fields(cls)} | numbers)


def check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError unless an array of a state is of this shape and type."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} of the state is a {array.dtype} array of shape {array.shape}; it must be a "
            f"{np.dtype(dtype)} array of shape {shape}"
        )


def pack_generator(generator: np.random.Generator) -> np.ndarray:
    """All of a PCG64 generator in six words, uint64: state and increment, the upper half first, and
    the spare half of a word with a flag that says whether there is one.

    Raises
    ------
    ValueError
        For a generator of another kind.
    """
    whole = generator.bit_generator.state
    if whole["bit_generator"] != "PCG64":
        raise ValueError(f"the generator is a {whole['bit_generator']}; only a PCG64 can be kept")
    state, increment = whole["state"]["state"], whole["state"]["inc"]
    words = (*divmod(state, _WORD), *divmod(increment, _WORD))
    return np.array([*words, whole["has_uint32"], whole["uinteger"]], np.uint64)


def unpack_generator(words: np.ndarray) -> np.random.Generator:
    """A generator that draws what the packed one would have drawn next."""
    state_high, state_low, increment_high, increment_low, has_uint32, uinteger = map(int, words)
    bits = np.random.PCG64(0)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {
            "state": state_high * _WORD + state_low,
            "inc": increment_high * _WORD + increment_low,
        },
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)


def digest_arrays(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """128-bit hash (16,) uint8 of the shapes, types and bytes of C-contiguous arrays."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.reshape(-1))
    return np.frombuffer(digest.digest(), np.uint8)
