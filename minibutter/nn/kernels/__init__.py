"""The compiled kernels, from the matrix product to the epoch; reading order:

`jit` (how), `gemm`, `layers`, `losses`, `metrics`, `optimizers`, `epoch` (all of it together).
"""
