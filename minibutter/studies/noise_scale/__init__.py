"""The gradient noise scale: from which batch size on a gradient has more signal than noise.

Source of all of it: McCandlish, Kaplan, Amodei et al. 2018, *An empirical model of large-batch
training*, arXiv:1812.06162; equations are cited by its numbers.
"""
