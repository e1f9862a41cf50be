"""What to run, as data: specifications, sweeps, identity, and the catalogue of named sweeps."""

QUICKSTART = "quickstart"
"""The sweep of the catalogue that is run when none is named."""
