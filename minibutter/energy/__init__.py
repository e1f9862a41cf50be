"""Energy of a run, read from the counters of the processor.

`zones` finds the counters and `powercap` reads them; where they are closed, `events` reads those of
perf. `sampler` reads at the right moments, `series` turns readings into energy as a function of
time, and `meter` answers with joules that say what they are worth (`quantity`). Where several ranks
run on a node, one of them reads for all (`reader`, `board`), the others read along (`follower`) and
each works out its part (`attribution`); `account` adds up what became of the node's energy.
`simulated` is a machine whose energy is known, built from `profiles` by `tree`. Joules that were
not measured are None with a reason.
"""

from minibutter.energy.meter import Meter
from minibutter.energy.opening import ROOT_VARIABLE, open_meter, open_rank_meter, open_reader
from minibutter.energy.quantity import Cost, Energy, add_up, unavailable_energy
from minibutter.energy.regions import RegionMeter

__all__ = [
    "ROOT_VARIABLE",
    "Cost",
    "Energy",
    "Meter",
    "RegionMeter",
    "add_up",
    "open_meter",
    "open_rank_meter",
    "open_reader",
    "unavailable_energy",
]
