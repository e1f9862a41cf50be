"""Trees of `/sys` and `/proc` in a temporary folder: machines that we do not have.

`FakeMachine` builds one piece by piece; `PROFILES` are whole ones, made from it.
"""

from pathlib import Path

KIB, MIB = 2**10, 2**20


class FakeMachine:
    """The root of a tree; every method adds to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, content: object) -> Path:
        """A file with its newline, as the kernel writes them."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
        return file

    def add_cpu(self, number, *, package=0, die=0, core=None, threads=None):
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        self.write(f"{folder}/physical_package_id", package)
        self.write(f"{folder}/die_id", die)
        self.write(f"{folder}/core_id", number if core is None else core)
        self.write(f"{folder}/thread_siblings_list", number if threads is None else threads)

    def add_cache(self, cpus, level, type_, size_kib, *, ways=8, line=64, shared=None, sets=None):
        """One instance, in the folders of all CPUs that are said to share it."""
        index = {(1, "Data"): 0, (1, "Instruction"): 1}.get((level, type_), level)
        for cpu in cpus:
            folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            self.write(f"{folder}/level", level)
            self.write(f"{folder}/type", type_)
            self.write(f"{folder}/size", f"{size_kib}K")
            self.write(f"{folder}/coherency_line_size", line)
            self.write(f"{folder}/ways_of_associativity", ways)
            self.write(f"{folder}/number_of_sets", sets or size_kib * KIB // ways // line)
            self.write(f"{folder}/shared_cpu_list", shared or ",".join(map(str, cpus)))

    def add_node(self, number, cpus, memory_kib=16 * MIB, distances="10"):
        folder = f"sys/devices/system/node/node{number}"
        self.write(f"{folder}/cpulist", cpus)
        self.write(f"{folder}/meminfo", f"Node {number} MemTotal:  {memory_kib} kB")
        self.write(f"{folder}/distance", distances)

    def add_zone(self, slot, name, energy_uj=5_000_000, range_uj=262143328850):
        """A zone of powercap with its flat link; the slot is such as `intel-rapl:0:1`."""
        folder = f"sys/devices/virtual/powercap/intel-rapl/{slot}"
        self.write(f"{folder}/name", name)
        self.write(f"{folder}/max_energy_range_uj", range_uj)
        self.write(f"{folder}/energy_uj", energy_uj)
        link = self.root / "sys/class/powercap" / slot
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.root / folder)

    def add_pmu(self, name, type_, cpumask, events, scale="2.3283064365386962890625e-10"):
        """A PMU of perf with events such as `{"energy-pkg": 2}`."""
        folder = f"sys/bus/event_source/devices/{name}"
        self.write(f"{folder}/type", type_)
        self.write(f"{folder}/cpumask", cpumask)
        self.write(f"{folder}/format/event", "config:0-7")
        for event, number in events.items():
            self.write(f"{folder}/events/{event}", f"event=0x{number:02x}")
            self.write(f"{folder}/events/{event}.scale", scale)
            self.write(f"{folder}/events/{event}.unit", "Joules")

    def add_cpuinfo(self, flags="fpu sse2", microcode="0x2b000603"):
        block = f"processor\t: 0\nmicrocode\t: {microcode}\nflags\t\t: {flags}\n"
        self.write("proc/cpuinfo", block + "\n" + block.replace(microcode, "0xother"))


def server(machine):
    """Two sockets of four cores with two threads; CPU n and n + 8 are one core."""
    for cpu in range(16):
        core = cpu % 8
        machine.add_cpu(cpu, package=core // 4, core=core % 4, threads=f"{core},{core + 8}")
    for core in range(8):
        threads = (core, core + 8)
        machine.add_cache(threads, 1, "Data", 32)
        machine.add_cache(threads, 1, "Instruction", 32)
        machine.add_cache(threads, 2, "Unified", 1024)
    for package in range(2):
        first = 4 * package
        cpus = [*range(first, first + 4), *range(first + 8, first + 12)]
        machine.add_cache(cpus, 3, "Unified", 16384, ways=16)
        machine.add_node(package, f"{first}-{first + 3},{first + 8}-{first + 11}",
                         distances=("10 21", "21 10")[package])  # fmt: skip
    machine.write("sys/devices/system/node/online", "0-1")
    machine.write("sys/devices/system/cpu/online", "0-15")
    machine.add_cpuinfo()


def hybrid(machine):
    """Two performance cores with two threads, four efficient ones that share a second level, and a
    low-power one outside the third level."""
    for cpu in range(4):
        machine.add_cpu(cpu, core=cpu // 2, threads=f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}")
    for cpu in range(4, 9):
        machine.add_cpu(cpu, core=cpu)
    for pair in ((0, 1), (2, 3)):
        machine.add_cache(pair, 1, "Data", 48, ways=12)
        machine.add_cache(pair, 2, "Unified", 2048, ways=16)
    for cpu in range(4, 9):
        machine.add_cache((cpu,), 1, "Data", 32)
    machine.add_cache(range(4, 8), 2, "Unified", 4096, ways=16)
    machine.add_cache((8,), 2, "Unified", 2048, ways=16)
    machine.add_cache(range(8), 3, "Unified", 24576, ways=12)
    for device, cpus in (("cpu_core", "0-3"), ("cpu_atom", "4-7"), ("cpu_lowpower", "8")):
        machine.write(f"sys/devices/{device}/cpus", cpus)
    machine.add_node(0, "0-8")
    machine.write("sys/devices/system/node/online", "0")
    machine.write("sys/devices/system/cpu/online", "0-8")
    machine.add_cpuinfo()


def x3d(machine):
    """Two dies of four cores; one has 96 MiB of third level, the other 32."""
    for cpu in range(8):
        machine.add_cpu(cpu, die=cpu // 4)
        machine.add_cache((cpu,), 1, "Data", 32)
        machine.add_cache((cpu,), 2, "Unified", 1024)
    machine.add_cache(range(4), 3, "Unified", 98304, ways=16)
    machine.add_cache(range(4, 8), 3, "Unified", 32768, ways=16)
    machine.add_node(0, "0-7")
    machine.write("sys/devices/system/node/online", "0")
    machine.write("sys/devices/system/cpu/online", "0-7")
    machine.add_cpuinfo()


def vm_rapl(machine):
    """A virtual machine whose hypervisor invents counters."""
    machine.add_cpu(0)
    machine.add_cpu(1)
    machine.add_zone("intel-rapl:0", "package-0")
    machine.add_zone("intel-rapl:0:0", "core")
    machine.write("sys/class/dmi/id/sys_vendor", "QEMU")
    machine.add_cpuinfo(flags="fpu sse2 hypervisor avx2")


PROFILES = {"server": server, "hybrid": hybrid, "x3d": x3d, "vm_rapl": vm_rapl}
