"""What to run, as data: specifications, sweeps, identity, and the catalogue of named sweeps."""
