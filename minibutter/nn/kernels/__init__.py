"""The compiled kernels, from the matrix product to the epoch.

Reading order: `jit` (how), `gemm` and its `tile`, `layers`, `losses`, `metrics`, `optimizers`,
`epoch` (all of it together).
"""
