"""Networks and their training: arrays in, arrays out.

Read `reference` first (every operation once, in NumPy), then `kernels` (the same, compiled), then
`network` and `training`. `shapes` turns BUTTER's shape, size and depth into layer widths.
"""
