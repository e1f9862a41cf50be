"""What reading the energy costs: microseconds a sample, and the share of a core at ten a second.

`python -m bench.reading` builds the trees of machines in memory (/dev/shm where there is one) and
reads them through the very files that the meter holds open; medians over rounds on one pinned core,
in processor time, so that who else wants the core does not count. The trees are files of tmpfs: a
true counter adds the reading of a register, about a microsecond, or a few where it belongs to
another package's core. The numbers in the files stand still: one that has moved takes
a fifth of a microsecond more.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from minibutter.energy import open_meter
from minibutter.energy.profiles import PROFILES
from minibutter.energy.tree import build_tree
from minibutter.provenance import read_provenance

RESULTS = Path(__file__).parent / "results" / "reading.json"
MACHINES = ("amd_zen", "intel_client", "intel_server2", "spr4", "twelve_zones")
LIMIT_US, RATE_HZ = 20.0, 10.0


def measure(profile: str, rounds: int, samples: int = 2000) -> dict:
    """Cost of a sample of the total of one machine.

    Returns
    -------
    dict
        profile, counters read, `sample_us` (processor time of a sample), `region_us` (of two
        samples and the energy between them), `cpu_share_at_10_hz`.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder) / "machine"
        zones = PROFILES[profile].zones
        # All counters differ: equal ones would be mirrors.
        build_tree(root, PROFILES[profile], {zone.link: 10**9 + i for i, zone in enumerate(zones)})
        with open_meter(root) as meter:
            counters = sum(domain.is_summed for domain in meter.domains)
            samples_us, regions_us = [], []
            for _ in range(rounds):
                begun_s = time.process_time()
                for _ in range(samples):
                    meter.stamp()
                samples_us.append((time.process_time() - begun_s) / samples * 1e6)
                stamps = [meter.stamp() for _ in range(samples)]
                begun_s = time.process_time()
                for i in range(samples):
                    meter.between(stamps[i // 2], stamps[-1])
                asking_us = (time.process_time() - begun_s) / samples * 1e6
                regions_us.append(2 * samples_us[-1] + asking_us)
                meter.forget_before(meter.stamp())
    sample_us = statistics.median(samples_us)
    return {
        "profile": profile,
        "counters": counters,
        "sample_us": round(sample_us, 2),
        "region_us": round(statistics.median(regions_us), 2),
        "cpu_share_at_10_hz": round(sample_us * RATE_HZ / 1e6, 7),
    }


def main() -> None:
    """Measure, print, and keep the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help=f"keep them in {RESULTS.name}")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = [measure(profile, options.rounds) for profile in MACHINES]
    for row in rows:
        print(
            f"{row['profile']:>14}: {row['counters']:2} counters, {row['sample_us']:5.1f} us a "
            f"sample, {row['region_us']:5.1f} us a region, "
            f"{row['cpu_share_at_10_hz']:.4%} of a core at {RATE_HZ:.0f} Hz"
        )
    slow = [row["profile"] for row in rows if row["sample_us"] > LIMIT_US]
    print(f"limit {LIMIT_US:.0f} us: {'exceeded by ' + ', '.join(slow) if slow else 'kept by all'}")
    if options.write:
        about = {"cpu": read_provenance().cpu_model, "python": platform.python_version()}
        RESULTS.write_text(json.dumps({**about, "machines": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
