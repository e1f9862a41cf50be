"""When a job ends before all is done."""

import os
import signal
import subprocess
import sys
import time

import pytest

from minibutter.launch.stopping import LEFT_AT_ONCE, SAME_S, StopNow, Stopping, read_limit
from minibutter.sweeps.timelimit import TimeLimit


def test_without_a_limit_time_is_never_up():
    with Stopping(TimeLimit(None, "none")) as stopping:
        assert stopping.seconds_left == float("inf")
        assert not stopping.is_due


def test_a_tenth_of_a_short_limit_and_a_minute_of_a_long_one_are_left_for_closing():
    assert Stopping(TimeLimit(100.0, "")).seconds_left == pytest.approx(90.0, abs=1.0)
    assert Stopping(TimeLimit(7200.0, "")).seconds_left == pytest.approx(7140.0, abs=1.0)
    over = Stopping(TimeLimit(0.01, ""))
    time.sleep(0.02)
    assert over.is_due


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_asks_for_an_end_and_a_second_one_ends_at_once(number):
    before = signal.getsignal(number)
    with Stopping(TimeLimit(None, "")) as stopping:
        os.kill(os.getpid(), number)
        assert stopping.is_due
        os.kill(os.getpid(), number)  # Passed on by a launcher, to a group that got it as well.
        time.sleep(SAME_S)
        with pytest.raises(StopNow, match="came twice"):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_what_does_not_end_in_time_is_due_before_it_begins():
    stopping = Stopping(TimeLimit(100.0, ""))
    assert not stopping.is_due_within(80.0)
    assert stopping.is_due_within(91.0)


DEAF = """
import hashlib, os, signal, threading, time
from minibutter.launch import stopping
from minibutter.sweeps.timelimit import TimeLimit

def kill_twice():
    time.sleep(0.2)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
        time.sleep({pause_s})

stopping.PATIENCE_S = 0.2
with stopping.Stopping(TimeLimit(None, "")) as heard:
    threading.Thread(target=kill_twice).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", {n_rounds})
print("ended in good order" if heard.is_asked else "nothing heard")
"""


def deaf(pause_s, n_rounds):
    code = DEAF.format(pause_s=pause_s, n_rounds=n_rounds)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_two_signals_at_the_same_moment_are_one():
    done = deaf(pause_s=0.01, n_rounds=3_000_000)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ended in good order\n"


def test_a_second_signal_ends_a_process_that_is_in_the_middle_of_a_long_epoch():
    """As in a kernel: the interpreter's lock is free, and the main thread does not look."""
    done = deaf(pause_s=SAME_S + 0.1, n_rounds=2**31 - 1)
    assert done.returncode == 75
    assert done.stderr == LEFT_AT_ONCE + "\n"


def test_the_limit_comes_from_the_option_or_from_the_batch_system():
    assert read_limit("2h", {}).seconds_left == 7200.0
    end = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 500)}
    assert read_limit("auto", end).seconds_left == pytest.approx(500, abs=2)
    assert read_limit(None, end).seconds_left is None
