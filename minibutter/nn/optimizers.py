"""Update rules by name, with their constants: what the kernels of an epoch take as `Optimizer`."""

import numpy as np

from minibutter.nn.kernels import epoch

OPTIMIZERS: dict[str, int] = {"adam": epoch.ADAM, "rmsprop": epoch.RMSPROP, "sgd": epoch.SGD}

MOMENTUM_FORMS: tuple[str, ...] = ("keras", "torch")

MAX_PERTURBATION = 2**20
"""A whole number that every type holds."""


def make_optimizer(
    rule: str,
    learning_rate: float,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    momentum_form: str = "keras",
    perturbation: int = 1,
) -> epoch.Optimizer:
    """An update rule with Keras' constants.

    Parameters
    ----------
    rule : a key of `OPTIMIZERS`.
    learning_rate : positive and finite.
    momentum : in [0, 1), for "sgd" and "rmsprop".
    nesterov : of "sgd" with momentum: Nesterov's variant, in PyTorch's form.
    momentum_form : of "sgd": whether the learning rate enters the buffer ("keras") or multiplies
        what comes out of it ("torch"). Without momentum there is no difference.
    perturbation : k >= 1 of "sgd": the step is (k η) (d / k), with d the update direction of
        PyTorch's form; 1 is the usual step.

    Raises
    ------
    ValueError
        For an unknown rule, an impossible constant, or one that the rule cannot use.
    """
    if rule not in OPTIMIZERS:
        raise ValueError(f"optimizer is {rule!r}; it must be one of {', '.join(OPTIMIZERS)}")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive and finite")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
    if rule == "adam" and momentum != 0:
        raise ValueError(
            f"momentum is {momentum}, but adam has its own (beta_1 = 0.9); "
            "leave momentum out, or use sgd or rmsprop"
        )
    _check_sgd(rule, momentum, nesterov, momentum_form, perturbation)
    is_torch = nesterov or momentum_form == "torch" or perturbation != 1
    return epoch.Optimizer(
        rule=epoch.TORCH_SGD if is_torch else OPTIMIZERS[rule],
        learning_rate=float(learning_rate),
        momentum=float(momentum),
        rho=0.9,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        is_nesterov=bool(nesterov),
        perturbation=float(perturbation),
        part_stop=np.array([np.iinfo(np.int64).max]),
        part_rate=np.ones(1),
        part_epsilon=np.ones(1),
    )


def _check_sgd(
    rule: str, momentum: float, nesterov: bool, momentum_form: str, perturbation: int
) -> None:
    """What only SGD has, and what its parts ask of each other."""
    if momentum_form not in MOMENTUM_FORMS:
        raise ValueError(
            f"momentum_form is {momentum_form!r}; it must be one of {', '.join(MOMENTUM_FORMS)}"
        )
    if perturbation != int(perturbation) or not 1 <= perturbation <= MAX_PERTURBATION:
        raise ValueError(
            f"perturbation is {perturbation}; it must be a whole number from 1 to "
            f"{MAX_PERTURBATION}"
        )
    for name, value, usual in (
        ("nesterov", nesterov, False),
        ("momentum_form", momentum_form, "keras"),
        ("perturbation", perturbation, 1),
    ):
        if rule != "sgd" and value != usual:
            raise ValueError(f"{name} is {value!r}, but {rule} has none; leave it out, or use sgd")
    if nesterov and momentum == 0:
        raise ValueError("nesterov without momentum is plain descent; give momentum, as in 0.9")
    if perturbation != 1 and momentum > 0 and not nesterov and momentum_form == "keras":
        raise ValueError(
            f"perturbation is {perturbation}, but in Keras' form of momentum the learning rate is "
            "within the buffer: take momentum_form 'torch', or nesterov, for all perturbations"
        )
