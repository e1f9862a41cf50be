"""minibutter: how fully connected networks train, measured on CPUs.

The rooms are separate on purpose: `nn` computes, `datasets` encodes, `energy` measures, `sweeps`
says what to run, `store` keeps it. Above them `experiments` plans, `machine` and `hierarchy` say
what it runs on, `runs` joins them and `launch` spreads them over MPI ranks.
Importing the package compiles nothing, opens no file and starts no MPI.
"""

__version__ = "0.1.0"
