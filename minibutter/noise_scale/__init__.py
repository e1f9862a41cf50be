"""What squared norms of gradients say of their noise: estimates, intervals, averages, batch sizes.

Numbers in, numbers out: where the norms come from is the business of `nn`, and what questions are
asked of them that of `studies`.

Source of all of it: McCandlish, Kaplan, Amodei et al. 2018, *An empirical model of large-batch
training*, arXiv:1812.06162; equations are cited by its numbers.
"""
