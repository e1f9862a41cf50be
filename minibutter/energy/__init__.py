"""Energy of a run, read from the counters of the processor.

`powercap` finds and reads the counters, `meter` turns readings into joules that say what they are
worth. Joules that were not measured are None with a reason.
"""

from minibutter.energy.meter import Energy, Meter, Reading, open_meter

__all__ = ["Energy", "Meter", "Reading", "open_meter"]
