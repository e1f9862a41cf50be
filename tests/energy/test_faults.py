"""The faults that a trustworthy reader must survive, and where each of them is tested.

Tests of this folder are named `test_fault_NN_...`; others are written out.
"""

import ast
from pathlib import Path

import pytest

FAULTS = {
    1: "powercap absent",
    2: "powercap present but empty",
    3: "dangling links of a masked container",
    4: "EACCES on every counter",
    5: "EACCES on some counters only",
    6: "range unreadable, 0 or absent",
    7: "a single wrap",
    8: "a wrap to exactly the same value",
    9: "two wraps between readings",
    10: "reset to 0",
    11: "stuck counter",
    12: "energy beyond the range",
    13: "EINVAL on one reading, then recovery",
    14: "ENODEV after hot-unplug",
    15: "zone added again under another index",
    16: "package added while running",
    17: "psys counted twice",
    18: "mmio as a duplicate, mmio alone readable",
    19: "mirrored dies",
    20: "independent dies",
    21: "hexadecimal indices",
    22: "index is not the package's number",
    23: "core zone of AMD",
    24: "unknown zone name",
    25: "foreign control types, zones with power only",
    26: "partial or non-numeric content",
    27: "loop through subsystem",
    28: "fork, exec, posix_spawn",
    29: "many ranks on a node",
    30: "clock step, suspend, exceptions, nested, empty and short regions",
    31: "interrupted sweep",
    32: "precision of integers",
    33: "virtual machine with emulated counters",
    34: "multiplexed or forbidden performance events",
    35: "cache files missing or inconsistent",
    36: "SIGKILL in the middle of writing",
}
ELSEWHERE = {
    34: "tests/energy/test_perf.py",
    35: "tests/energy/test_topology.py",
    36: "tests/store/test_recovery.py",
}
"""What is no fault of the meter is tested beside what it is a fault of."""


def fault_tests():
    names = []
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_fault_"):
                names.append(node.name)
    return names


@pytest.mark.parametrize("number", sorted(set(FAULTS) - set(ELSEWHERE)))
def test_every_fault_has_a_test_with_its_number(number):
    assert [name for name in fault_tests() if name.startswith(f"test_fault_{number:02}_")]


def test_no_test_has_a_number_that_is_none():
    assert sorted(FAULTS) == list(range(1, 37))
    assert {int(name.split("_")[2]) for name in fault_tests()} <= set(FAULTS)
