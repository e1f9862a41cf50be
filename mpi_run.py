"""Train a sweep on all ranks: `mpirun -n N python mpi_run.py [SWEEP.toml] [--out DIR]`.

Without arguments it trains the quick-start sweep. Running it again continues where it ended.
"""

from minibutter.launch import main

if __name__ == "__main__":
    raise SystemExit(main())
