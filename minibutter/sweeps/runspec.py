"""`RunSpec`: everything that one run is made from, with its types, ranges, defaults and rules.

Names that other rooms own (shapes, optimizers, data sets, ...) are checked by functions that the
caller passes in; types and ranges are checked here, of a whole specification or of single values,
so that a sweep of millions of cells checks the few values of its axes.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

Checks = Mapping[str, Callable[[Any], None]]
"""For a key of `RunSpec`: a function that raises ValueError when the value cannot be."""


# What the columns of the results can hold, and what a mistyped zero must not ask for.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
LargeCount = Annotated[int, Field(ge=1, le=2**63 - 1)]
MAX_DEPTH = 1000


class SweepError(ValueError):
    """A sweep cannot be read; the message names file, key, value and rule."""


class RunSpec(BaseModel):
    """Everything that determines a run, but the number of its repetition. Defaults are BUTTER's.

    Either `size` and `depth` say how large the network is, and `shape` how it narrows, or `widths`
    lists the units of every layer, the output layer last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: str = Field(min_length=1, description="name, generator or path of the data set")
    target: str | None = Field(None, description="target column of a local file")
    task: Literal["regression", "classification"] | None = Field(
        None, description="how to read the target of a local file; inferred when left out"
    )
    shape: str = Field("rectangle", description="outline of the network")
    size: LargeCount | None = Field(None, description="trainable parameters wanted")
    depth: Annotated[int, Field(ge=2, le=MAX_DEPTH)] | None = Field(
        None, description="dense layers, the output layer included"
    )
    widths: Annotated[tuple[Count, ...], Field(max_length=MAX_DEPTH)] | None = Field(
        None, description="units of every layer, instead of size and depth"
    )
    activation: str = Field("relu", description="of the hidden layers")
    initializer: str = Field("glorot_uniform", description="distribution of the first weights")
    parameterization: Literal["standard", "ntk", "mup"] = Field(
        "standard", description="how first weights and learning rates follow from the widths"
    )
    sigma0: FiniteFloat = Field(
        1.0, gt=0, description="of gaussian first weights, whose variance is sigma0² / fan_in"
    )
    bias_multiplier: FiniteFloat = Field(1.0, ge=0, description="β of ntk: z = m V x + β c")
    base_width: Count | None = Field(
        None, description="of mup: hidden width at which it is the standard parameterization"
    )
    optimizer: str = Field("adam", description="update rule")
    learning_rate: FiniteFloat = Field(1e-4, gt=0, description="step size")
    learning_rate_step_epochs: Count | None = Field(
        None, description="epochs after which the step size is multiplied by learning_rate_gamma"
    )
    learning_rate_gamma: FiniteFloat = Field(0.1, gt=0, description="see the key before")
    momentum: FiniteFloat = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="Nesterov's momentum, of sgd, as in PyTorch")
    momentum_form: Literal["keras", "torch"] = Field(
        "keras",
        description="of sgd: whether the learning rate enters the buffer of momentum, as in"
        " Keras, or multiplies what comes out of it, as in PyTorch",
    )
    perturbation: int = Field(
        1,
        ge=1,
        le=2**20,
        description="k of sgd's step (k η) (d / k), which changes nothing but its rounding",
    )
    batch_size: Count = Field(256, description="rows per step")
    batch_rule: Literal["fixed", "noise_scale"] = Field(
        "fixed", description="how many rows the steps of an epoch have: batch_size, or as many as"
        " the noise scale of the epochs before asks for, from batch_size to batch_size_max",
    )  # fmt: skip
    batch_exchange_rate: FiniteFloat | None = Field(
        None, gt=0, description="of batch_rule noise_scale: examples that a step is worth"
    )
    batch_size_max: Count | None = Field(
        None, description="of batch_rule noise_scale: the most rows of a step"
    )
    sampling: Literal["shuffle", "replacement"] = Field(
        "shuffle", description="whether an epoch takes every row once, or rows by lot"
    )
    epochs: Count = Field(3000, description="passes over the training set")
    l1: FiniteFloat = Field(0.0, ge=0, description="penalty on Σ|w| of every layer")
    l2: FiniteFloat = Field(0.0, ge=0, description="penalty on Σw² of every layer")
    label_noise: FiniteFloat = Field(
        0.0, ge=0, le=1, description="fraction of wrong training labels; for regression the noise"
        " in standard deviations of the target",
    )  # fmt: skip
    test_split: FiniteFloat = Field(0.2, gt=0, lt=1, description="fraction of rows for testing")
    split_method: Literal["shuffled", "last"] = Field(
        "shuffled", description="draw the test rows in every repetition, or take the last ones"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of training")
    kernel: str = Field("tiled", description="rung of the matrix product ladder")
    tile_rows: Count | None = Field(
        None,
        description="rows of the register tile; like the sizes below, the machine's if left out",
    )
    tile_columns: Count | None = Field(
        None, description="columns of the register tile, whole cache lines"
    )
    block_rows: Count | None = Field(None, description="rows of a cache block")
    block_depth: Count | None = Field(None, description="products of a sum in a cache block")
    block_columns: Count | None = Field(None, description="columns of a cache block")
    cache_state: Literal["warm", "cold"] = Field(
        "warm", description="of the caches at the start of an epoch: as the one before has left"
        " them, or emptied",
    )  # fmt: skip
    slices: Count = Field(
        1, description="parts of a batch that ranks share out; 1: each rank has runs of its own"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="root of all random streams")
    evaluate_train: bool = Field(
        False, description="evaluate the training set after every epoch too"
    )
    measure: tuple[Literal["noise_scale"], ...] = Field(
        (),
        max_length=1,
        description="what to measure beside the metrics, in columns of every epoch",
    )
    on_divergence: Literal["continue", "stop"] = Field(
        "continue", description="what to do after the first epoch with NaN or inf"
    )

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "RunSpec":
        if self.widths is None and (self.size is None or self.depth is None):
            missing = [key for key in ("size", "depth") if getattr(self, key) is None]
            raise ValueError(
                f"{' and '.join(missing)} missing: give size and depth (with shape), or widths"
            )
        if self.widths is not None and (self.size is not None or self.depth is not None):
            raise ValueError("widths stand instead of size and depth; give one or the other")
        if self.widths is not None and len(self.widths) < 2:
            raise ValueError(
                "widths needs at least one hidden layer and the output layer, as in [17, 17, 7]"
            )
        if self.optimizer == "adam" and self.momentum != 0:
            raise ValueError(
                f"momentum = {self.momentum} with optimizer = 'adam', which has its own; "
                "leave momentum out, or use sgd or rmsprop"
            )
        self._check_what_is_sgds()
        self._check_parameterization()
        self._check_batch_rule()
        return self

    def _check_what_is_sgds(self) -> None:
        for key in _SGD_KEYS:
            if self.optimizer != "sgd" and getattr(self, key) != _default(key):
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} with optimizer = {self.optimizer!r}, which "
                    f"has none; leave {key} out, or use sgd"
                )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = True needs momentum, as in momentum = 0.9")
        is_keras = self.momentum_form == "keras" and not self.nesterov
        if self.perturbation != 1 and self.momentum > 0 and is_keras:
            raise ValueError(
                f"perturbation = {self.perturbation} with Keras' momentum, which has the learning "
                "rate within its buffer; give momentum_form = 'torch' or nesterov = true, to the "
                "runs with perturbation = 1 too"
            )

    def _check_parameterization(self) -> None:
        is_gaussian = self.initializer == "gaussian"
        if self.parameterization != "standard" and not is_gaussian:
            raise ValueError(
                f"parameterization = {self.parameterization!r} with initializer = "
                f"{self.initializer!r}; it scales Gaussian weights: give initializer = 'gaussian'"
            )
        for key, is_used, user in (
            ("sigma0", is_gaussian, "initializer = 'gaussian'"),
            ("bias_multiplier", self.parameterization == "ntk", "parameterization = 'ntk'"),
            ("base_width", self.parameterization == "mup", "parameterization = 'mup'"),
            (
                "learning_rate_gamma",
                self.learning_rate_step_epochs is not None,
                "learning_rate_step_epochs",
            ),
        ):
            if not is_used and getattr(self, key) != _default(key):
                raise ValueError(f"{key} = {getattr(self, key)!r} is of use only with {user}")
        if self.parameterization == "mup" and self.base_width is None:
            raise ValueError(
                "parameterization = 'mup' needs base_width, the hidden width at which nothing "
                "changes"
            )

    def _check_batch_rule(self) -> None:
        for key in ("batch_exchange_rate", "batch_size_max"):
            if self.batch_rule == "fixed" and getattr(self, key) is not None:
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} is of use only with batch_rule = 'noise_scale'"
                )
            if self.batch_rule != "fixed" and getattr(self, key) is None:
                raise ValueError(f"batch_rule = {self.batch_rule!r} needs {key}")
        if self.batch_rule != "fixed" and "noise_scale" not in self.measure:
            raise ValueError(
                f"batch_rule = {self.batch_rule!r} follows what is measured: give measure = "
                "['noise_scale']"
            )

    def canonical(self) -> dict[str, Any]:
        """The specification as plain values, with one spelling for what is the same network.

        All shapes coincide at depth 2, one hidden layer, and explicit widths leave of the shape
        only whether there are skips. Of later keys the defaults are not mentioned: they are
        what there always was, and ids do not change with every new field. Without momentum, and
        for Nesterov's, there is one form of it.
        """
        content = self.model_dump(mode="json")
        for key in LATER_KEYS:
            if getattr(self, key) == _default(key):
                del content[key]
        if self.momentum == 0 or self.nesterov:
            content.pop("momentum_form", None)
        content["shape"] = self.network_shape
        return content

    @property
    def network_shape(self) -> str:
        """See `network_shape`."""
        return network_shape(self.shape, self.depth, self.widths)


def network_shape(shape: str, depth: int | None, widths: tuple[int, ...] | None) -> str:
    """The shape, of which nothing is left at depth 2, and of explicit widths only the skips."""
    depth = depth if widths is None else len(widths)
    is_residual = shape == "rectangle_residual"
    if depth == 2 or (widths is not None and not is_residual):
        return "rectangle"
    return shape


@cache
def _default(key: str) -> Any:
    return RunSpec.model_fields[key].default


SPEC_KEYS: tuple[str, ...] = tuple(RunSpec.model_fields)

_SGD_KEYS = ("nesterov", "momentum_form", "perturbation")
_PARAMETERIZATION_KEYS = ("parameterization", "sigma0", "bias_multiplier", "base_width")

_BATCH_KEYS = ("measure", "batch_rule", "batch_exchange_rate", "batch_size_max")

_SCHEDULE_KEYS = ("learning_rate_step_epochs", "learning_rate_gamma")

LATER_KEYS = (
    *("cache_state", "slices", "sampling"),
    *_BATCH_KEYS,
    *_SGD_KEYS,
    *_PARAMETERIZATION_KEYS,
    *_SCHEDULE_KEYS,
)
"""Keys that are younger than the first ids: part of an identity where they are not the default."""

LIST_KEYS = ("widths", "measure")
"""Keys whose values are lists themselves: an axis of them is a list of lists."""

RULE_KEYS = (
    *("widths", "optimizer", "momentum", "initializer"),
    *_BATCH_KEYS,
    *_SGD_KEYS,
    *_PARAMETERIZATION_KEYS,
    *_SCHEDULE_KEYS,
)
"""The keys whose values the rules across keys read; of others they ask only whether they are given,
which all cells of a grid answer alike."""


def check_value(key: str, value: Any, where: str, checks: Checks) -> Any:
    """One value of a key as a specification holds it: a whole number may become a real one.

    Parameters
    ----------
    key : one of `SPEC_KEYS`.
    value : as a TOML file has it, lists as tuples.
    where : begins the message.
    checks : functions that refuse values which other rooms do not know.

    Raises
    ------
    SweepError
        If the value has another type, is out of range, or a check refuses it.
    """
    try:
        if key in checks:
            checks[key](value)
        return _adapter(key).validate_python(value)
    except ValidationError as error:
        raise SweepError(f"{where}: {explain(error, key)}") from None
    except ValueError as error:
        raise SweepError(f"{where}: {key} = {value!r}: {error}") from None


@cache
def _adapter(key: str) -> TypeAdapter:
    field = RunSpec.model_fields[key]
    return TypeAdapter(Annotated[field.annotation, field], config=ConfigDict(strict=True))


def explain(error: ValidationError, key: str | None = None) -> str:
    """One line for the first thing that is wrong with a specification: key = value: rule.

    `key` names what was checked alone; else the error knows it.
    """
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    # TOML has lists where Python has tuples.
    message = message.replace("Input should be", "must be").replace("valid tuple", "list")
    if key is None and first["loc"]:
        key = first["loc"][0]
    if first["type"] == "missing":
        return f"{key} is missing: every run needs one"
    return f"{key} = {first['input']!r}: {message}" if key else message


def unknown_key(where: str, key: str, known: tuple[str, ...]) -> SweepError:
    """The error for a key that nobody knows, with the nearest that somebody does."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
    return SweepError(f"{where}: {key}: unknown key; {hint}")
