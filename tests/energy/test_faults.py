"""The faults that a trustworthy reader must survive, and where each part of them is tested."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent

FAULTS = """
 1  powercap absent                faults_of_files     without_powercap
 2  powercap present but empty     faults_of_files     an_empty_class
 3  dangling links of a container  faults_of_files     dangling_links
 4  EACCES on every counter        faults_of_files     forbidden_counters
 5  EACCES on a part of the total  faults_of_files     a_partial_total
 5  EACCES beside the total        faults_of_files     a_forbidden_part_beside
 6  range absent, 0 or no number   faults_of_files     without_a_range_what
 6  range unreadable               faults_of_files     a_range_that_cannot_be_read
 6  a fall                         faults_of_files     without_a_range_a_fall
 6  a long gap                     faults_of_files     without_a_range_a_long_gap
 7  a single wrap                  faults_of_counters  a_wrap
 7  many wraps                     faults_of_counters  many_wraps
 8  the same value, soon           faults_of_counters  the_same_value_after_a_short
 8  the same value, late           faults_of_counters  the_same_value_after_the_time
 9  time for a second wrap         faults_of_counters  a_second_wrap_is_excluded
 9  two wraps                      faults_of_counters  two_wraps
 9  bounds of zones                faults_of_counters  the_bound_of_the_zone
10  reset to 0                     faults_of_counters  a_reset
10  reloaded module                faults_of_files     a_module_that_was_loaded_anew
10  jump ahead                     faults_of_counters  a_counter_that_jumps
11  stuck counter                  faults_of_counters  a_stuck_counter
12  energy beyond the range        faults_of_counters  a_value_beyond
13  EINVAL once                    faults_of_files     one_failed_read
13  EINVAL, without permission     faults_of_files     a_file_that_may_no_longer_be_opened
14  package off                    faults_of_files     a_package_that_is_unplugged
14  ENODEV once                    faults_of_files     enodev_of_a_held_file
15  another slot                   faults_of_files     a_package_is_found_again
15  another package in the slot    faults_of_files     another_package
16  package added                  faults_of_files     a_package_that_appears
16  package added, by perf         events              a_package_that_comes_or_goes
17  psys, psys-1                   faults_of_counters  the_platform
18  mmio beside rapl               faults_of_counters  the_second_view
18  mmio alone readable            faults_of_counters  mmio_alone
19  mirrored dies                  faults_of_counters  mirrored_dies
19  an update between              faults_of_counters  an_update_between
19  mirrors that part              faults_of_counters  a_die_that_departs
20  independent dies               faults_of_counters  independent_dies
21  hexadecimal slots              faults_of_counters  slots_are_hexadecimal
22  slots are no numbers           faults_of_counters  slots_are_not_numbers
23  core zone of AMD               faults_of_counters  the_one_core
24  unknown zone name              faults_of_files     a_zone_with_an_unknown_name
25  foreign control types          faults_of_files     foreign_control_types
25  power only, beside the total   faults_of_files     a_part_that_shows_power
25  power only, of a package       profiles            a_package_that_shows_power_only
26  content                        faults_of_files     what_is_not_one_line
27  loop through subsystem         faults_of_files     the_loop_through_subsystem
28  fork while sampling            faults_of_files     after_a_fork
28  exec, posix_spawn              faults_of_files     counters_are_not_inherited
28  closed descriptor              faults_of_files     a_descriptor_that_was_closed
29  many ranks                     attribution         many_ranks_have_one_reader
29  two jobs on a node             attribution         two_jobs_on_a_node
29  containers of one kernel       attribution         ranks_in_containers
29  other boot ids                 mpi/node_energy     kernels_are_told_apart
29  oversubscription               placement           a_gang_has_a_core_for_each
30  the reader ends                attribution         what_the_reader_read
30  the reader hangs               attribution         a_reader_that_does_not_answer
30  clock step                     faults_of_counters  a_step_of_the_wall_clock
30  suspend                        faults_of_counters  what_was_drawn_while_the_machine_slept
30  exception                      faults_of_counters  an_exception_in_a_region
30  nested regions                 faults_of_counters  nested_regions
30  empty and short regions        faults_of_counters  a_region_of_less_than_ten
31  interrupted sweep              faults_of_counters  a_sweep_that_was_preempted
32  weeks of microjoules           faults_of_counters  weeks_of_microjoules
32  through the reader             faults_of_counters  a_microjoule_after_months
33  emulated counters              faults_of_files     counters_of_a_virtual_machine
33  updated once a second          faults_of_files     counters_that_are_updated
34  refusals told apart            perf                every_refusal
34  multiplexed                    events              a_count_that_shared
35  sysfs missing                  topology            caches_that_are_not_told
35  contradictory size             topology            a_size_that_its_ways
35  nothing is flushed by guess    flush               unknown_caches
36  SIGKILL while writing          store/recovery      killed_writer_leaves_each_run
"""
"""Number, part of the fault, file of the test without `test_` and ending, beginning of its name.

The number is left out of the name, in which it stands as `test_fault_NN_`; some tests have none."""


class Part(NamedTuple):
    """A line of `FAULTS`."""

    number: int
    what: str
    file: str
    beginning: str


PARTS = [
    Part(int(line[:2]), *re.split("  +", line[4:])) for line in FAULTS.strip("\n").splitlines()
]


def names_of_tests(file):
    """Of this folder, or of `folder/file` beside it."""
    folder, _, name = file.rpartition("/")
    path = (FOLDER.parent / folder if folder else FOLDER) / f"test_{name}.py"
    nodes = ast.parse(path.read_text()).body
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


def test_there_are_the_thirty_six_faults():
    assert sorted({part.number for part in PARTS}) == list(range(1, 37))
    assert len({(part.number, part.what) for part in PARTS}) == len(PARTS)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.number} {part.what}")
def test_every_part_of_a_fault_has_its_test(part):
    beginnings = f"test_fault_{part.number:02}_{part.beginning}", f"test_{part.beginning}"
    assert len([name for name in names_of_tests(part.file) if name.startswith(beginnings)]) == 1


def test_no_test_has_a_number_that_is_none():
    files = [path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py")]
    names = [name for file in files for name in names_of_tests(file)]
    numbers = {int(name.split("_")[2]) for name in names if name.startswith("test_fault_")}
    assert numbers <= {part.number for part in PARTS}
    assert len(numbers) > 30
