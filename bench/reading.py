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
from minibutter.energy.attribution import RankMeter
from minibutter.energy.powercap import PowercapSource
from minibutter.energy.profiles import PROFILES
from minibutter.energy.reader import NodeReader
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


def measure_reader(profile: str, n_ranks: int, rounds: int, samples: int = 2000) -> dict:
    """Cost of a sample of the one reader of a node, with the processor times of its ranks and the
    board that it writes on, and what a rank takes to follow it.

    Returns
    -------
    dict
        profile, ranks, `sample_us`, `follow_us` (of one sample, for one rank),
        `cpu_share_at_10_hz`.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder) / "machine"
        zones = PROFILES[profile].zones
        build_tree(root, PROFILES[profile], {zone.link: 10**9 + i for i, zone in enumerate(zones)})
        reader = NodeReader(PowercapSource(root), [None] * n_ranks, [os.getpid()] * n_ranks)
        sampler = reader._sampler
        samples_us, follows_us = [], []
        with RankMeter(reader.counters, 0) as meter:
            for _ in range(rounds):
                begun_s = time.process_time()
                for _ in range(samples):
                    sampler.sample(sampler.n_summed)
                sampled_s = time.process_time()
                meter.settle()
                samples_us.append((sampled_s - begun_s) / samples * 1e6)
                follows_us.append((time.process_time() - sampled_s) / samples * 1e6)
        reader.close()
    sample_us = statistics.median(samples_us)
    return {
        "profile": profile,
        "ranks": n_ranks,
        "sample_us": round(sample_us, 2),
        "follow_us": round(statistics.median(follows_us), 2),
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
    readers = [measure_reader("intel_server2", n, options.rounds) for n in (2, 16, 64)]
    for row in readers:
        print(
            f"{row['profile']:>14}: one reader for {row['ranks']:2} ranks, {row['sample_us']:5.1f} "
            f"us a sample, {row['follow_us']:5.1f} us for a rank to follow, "
            f"{row['cpu_share_at_10_hz']:.4%} of a core at {RATE_HZ:.0f} Hz"
        )
    slow = [row["profile"] for row in rows if row["sample_us"] > LIMIT_US]
    print(f"limit {LIMIT_US:.0f} us: {'exceeded by ' + ', '.join(slow) if slow else 'kept by all'}")
    if options.write:
        about = {"cpu": read_provenance().cpu_model, "python": platform.python_version()}
        found = {**about, "machines": rows, "readers": readers}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
