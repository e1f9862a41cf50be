"""Energy of a run, read from the counters of the processor.

`zones` finds the counters, `powercap` reads them, `series` turns readings into energy as a
function of time, and `meter` answers with joules that say what they are worth (`quantity`).
`simulated` is a machine whose energy is known, built from `profiles` by `tree`. Joules that were
not measured are None with a reason.
"""

from minibutter.energy.meter import Meter
from minibutter.energy.opening import ROOT_VARIABLE, open_meter
from minibutter.energy.quantity import Cost, Energy, unavailable_energy

__all__ = ["ROOT_VARIABLE", "Cost", "Energy", "Meter", "open_meter", "unavailable_energy"]
