"""mpi_run.py that closes a shard after every group, and keeps what it trains 20 times a second: a
kill at any moment often hits a file that is being written.

MINIBUTTER_TEST_DEATH="RANK SECONDS" lets a rank die so long after it has begun, without a word.
"""

import os
import signal
import threading
import time
from functools import partial

from minibutter import launch, runs, store

runs.execute_group = partial(runs.execute_group, checkpoint_s=0.05)
store.ShardWriter = partial(store.ShardWriter, interval_s=0.0)


def die_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    death = os.environ.get("MINIBUTTER_TEST_DEATH", "").split()
    if death and death[0] == os.environ.get("PMI_RANK"):
        threading.Thread(target=die_after, args=(float(death[1]),), daemon=True).start()
    raise SystemExit(launch.main())
