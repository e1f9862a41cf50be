"""What to run, as data: specifications, sweeps, identity, and the catalogue of named sweeps; and
when: who gets what next, how long a job lasts, and how it is queued."""

QUICKSTART = "quickstart"
"""The sweep of the catalogue that is run when none is named."""
