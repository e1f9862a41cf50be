"""Benchmarks bind their process to a core; the tests that call them take it off again."""

import os

import pytest


@pytest.fixture(autouse=True)
def same_cores():
    """The cores of this process, before and after."""
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)
