"""Compile two kernels under `compile_once`, with a pause between them in which tests can meet or
kill the process. Prints how many it compiled and what they computed.

    python two_kernels.py PAUSE_S
"""

import sys
import time

from minibutter.nn.kernels import jit


@jit.kernel
def double(x):
    return 2 * x


@jit.kernel
def quadruple(x):
    return double(double(x))


with jit.compile_once("two"):
    doubled = double(3)
    if jit.kept.n_kernels:
        time.sleep(float(sys.argv[1]))
    quadrupled = quadruple(3)
print(jit.kept.n_kernels, doubled, quadrupled)
