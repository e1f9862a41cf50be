"""The faults that a trustworthy reader must survive, and where each part of them is tested.

Tests are named by their file, without `test_` and its ending, and their name, without `test_`.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS = {
    1: {"powercap absent": "energy/faults_of_files fault_01_without_powercap"},
    2: {"powercap present but empty": "energy/faults_of_files fault_02_an_empty_class"},
    3: {"dangling links of a container": "energy/faults_of_files fault_03_dangling_links"},
    4: {"EACCES on every counter": "energy/faults_of_files fault_04_forbidden_counters"},
    5: {
        "EACCES on a part of the total": "energy/faults_of_files fault_05_a_partial_total",
        "EACCES beside the total": "energy/faults_of_files fault_05_a_forbidden_part_beside",
    },
    6: {
        "range absent, 0 or no number": "energy/faults_of_files fault_06_without_a_range_what",
        "range unreadable": "energy/faults_of_files fault_06_a_range_that_cannot_be_read",
        "a fall": "energy/faults_of_files fault_06_without_a_range_a_fall",
        "a long gap": "energy/faults_of_files fault_06_without_a_range_a_long_gap",
    },
    7: {
        "a single wrap": "energy/faults_of_counters fault_07_a_wrap",
        "many wraps": "energy/faults_of_counters fault_07_many_wraps",
    },
    8: {
        "the same value, soon": "energy/faults_of_counters fault_08_the_same_value_after_a_short",
        "the same value, late": "energy/faults_of_counters fault_08_the_same_value_after_the_time",
    },
    9: {
        "time for a second wrap": "energy/faults_of_counters fault_09_a_second_wrap_is_excluded",
        "two wraps": "energy/faults_of_counters fault_09_two_wraps",
        "bounds of zones": "energy/faults_of_counters fault_09_the_bound_of_the_zone",
    },
    10: {
        "reset to 0": "energy/faults_of_counters fault_10_a_reset",
        "reloaded module": "energy/faults_of_files fault_10_a_module_that_was_loaded_anew",
        "jump ahead": "energy/faults_of_counters fault_10_a_counter_that_jumps",
    },
    11: {"stuck counter": "energy/faults_of_counters fault_11_a_stuck_counter"},
    12: {"energy beyond the range": "energy/faults_of_counters fault_12_a_value_beyond"},
    13: {"EINVAL once": "energy/faults_of_files fault_13_one_failed_read"},
    14: {
        "package off": "energy/faults_of_files fault_14_a_package_that_is_unplugged",
        "ENODEV once": "energy/faults_of_files fault_14_enodev_of_a_held_file",
    },
    15: {
        "another slot": "energy/faults_of_files fault_15_a_package_is_found_again",
        "another package in the slot": "energy/faults_of_files fault_15_another_package",
    },
    16: {"package added": "energy/faults_of_files fault_16_a_package_that_appears"},
    17: {"psys, psys-1": "energy/faults_of_counters fault_17_the_platform"},
    18: {
        "mmio beside rapl": "energy/faults_of_counters fault_18_the_second_view",
        "mmio alone readable": "energy/faults_of_counters fault_18_mmio_alone",
    },
    19: {
        "mirrored dies": "energy/faults_of_counters fault_19_mirrored_dies",
        "an update between": "energy/faults_of_counters fault_19_an_update_between",
        "mirrors that part": "energy/faults_of_counters fault_19_a_die_that_departs",
    },
    20: {"independent dies": "energy/faults_of_counters fault_20_independent_dies"},
    21: {"hexadecimal slots": "energy/faults_of_counters fault_21_slots_are_hexadecimal"},
    22: {"slots are no numbers": "energy/faults_of_counters fault_22_slots_are_not_numbers"},
    23: {"core zone of AMD": "energy/faults_of_counters fault_23_the_one_core"},
    24: {"unknown zone name": "energy/faults_of_files fault_24_a_zone_with_an_unknown_name"},
    25: {
        "foreign control types": "energy/faults_of_files fault_25_foreign_control_types",
        "power only, beside the total": "energy/faults_of_files fault_25_a_part_that_shows_power",
        "power only, of a package": "energy/profiles a_package_that_shows_power_only",
    },
    26: {"content": "energy/faults_of_files fault_26_what_is_not_one_line"},
    27: {"loop through subsystem": "energy/faults_of_files fault_27_the_loop_through_subsystem"},
    28: {
        "fork while sampling": "energy/faults_of_files fault_28_after_a_fork",
        "exec, posix_spawn": "energy/faults_of_files fault_28_counters_are_not_inherited",
        "closed descriptor": "energy/faults_of_files fault_28_a_descriptor_that_was_closed",
    },
    29: {"ranks that all read": "energy/faults_of_counters fault_29_ranks_that_all_read"},
    30: {
        "clock step": "energy/faults_of_counters fault_30_a_step_of_the_wall_clock",
        "suspend": "energy/faults_of_counters fault_30_what_was_drawn_while_the_machine_slept",
        "exception": "energy/faults_of_counters fault_30_an_exception_in_a_region",
        "nested regions": "energy/faults_of_counters fault_30_nested_regions",
        "empty and short regions": "energy/faults_of_counters fault_30_a_region_of_less_than_ten",
    },
    31: {"interrupted sweep": "energy/faults_of_counters fault_31_a_sweep_that_was_preempted"},
    32: {
        "weeks of microjoules": "energy/faults_of_counters fault_32_weeks_of_microjoules",
        "through the reader": "energy/faults_of_counters fault_32_a_microjoule_after_months",
    },
    33: {
        "emulated counters": "energy/faults_of_files fault_33_counters_of_a_virtual_machine",
        "updated once a second": "energy/faults_of_files fault_33_counters_that_are_updated",
    },
    34: {
        "refusals told apart": "energy/perf fault_34_every_refusal",
        "multiplexed": "energy/perf fault_34_an_event_that_shared",
        "in the meter": "energy/events counts_that_were_off_the_counter",
    },
    35: {
        "sysfs missing": "energy/topology fault_35_caches_that_are_not_told",
        "contradictory size": "energy/topology fault_35_a_size_that_its_ways",
        "nothing is flushed by guess": "energy/flush fault_35_unknown_caches",
    },
    36: {"SIGKILL while writing": "store/recovery killed_writer_leaves_each_run"},
}
"""By number: the parts of a fault, and where the name of their test begins."""

PARTS = [(number, part) for number, parts in FAULTS.items() for part in parts]


def names_of_tests(file: str) -> list[str]:
    folder, _, name = file.rpartition("/")
    tree = ast.parse((TESTS / folder / f"test_{name}.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_there_are_the_thirty_six_faults():
    assert sorted(FAULTS) == list(range(1, 37))


@pytest.mark.parametrize(("number", "part"), PARTS)
def test_every_part_of_a_fault_has_one_test(number, part):
    file, beginning = FAULTS[number][part].split()
    (name,) = (n for n in names_of_tests(file) if n.startswith(f"test_{beginning}"))
    assert name.startswith(f"test_fault_{number:02}_") or "fault_" not in name


def test_no_test_has_a_number_that_is_none():
    files = [f"energy/{path.stem.removeprefix('test_')}" for path in TESTS.glob("energy/test_*.py")]
    names = [name for file in files for name in names_of_tests(file)]
    numbers = {int(name.split("_")[2]) for name in names if name.startswith("test_fault_")}
    assert numbers <= set(FAULTS)
    assert len(numbers) > 30
