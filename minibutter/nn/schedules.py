"""How the learning rate changes from epoch to epoch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepSchedule:
    """The learning rate is multiplied by gamma after every so many epochs.

    That of PyTorch's `StepLR(step_size, gamma)`, but for the rounding: the power is taken at once,
    so that a run that goes on from a checkpoint has the bits of one that was never stopped.

    Attributes
    ----------
    step_epochs : epochs of one learning rate, at least 1.
    gamma : positive.
    """

    step_epochs: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.step_epochs < 1:
            raise ValueError(f"step_epochs is {self.step_epochs}; it must be at least 1")
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma is {self.gamma}; it must be positive and finite")

    def factor(self, epochs: int) -> float:
        """Over the first learning rate, when so many epochs are done."""
        return self.gamma ** (epochs // self.step_epochs)
