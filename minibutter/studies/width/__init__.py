"""How the best SGD noise goes with the width of a network.

`study.py` leads; `training.py`, `stability.py` and `coordinates.py` measure, `scales.py` says what
a noise scale is in every parameterization, `peak.py` finds optima and slopes with their intervals,
`criteria.py` and `rates.py` judge.
"""
