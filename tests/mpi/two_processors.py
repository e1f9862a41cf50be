"""mpi_run.py on ranks that have processors of two kinds."""

from dataclasses import replace

from minibutter import launch
from minibutter.launch import together
from minibutter.launch.ranks import find_ranks
from minibutter.provenance import read_provenance

found = replace(read_provenance(), cpu_model=f"processor {find_ranks().rank}")
together.read_provenance = lambda: found
raise SystemExit(launch.main())
