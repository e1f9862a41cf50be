"""Which package pays for a rank, and which core it gets where nobody has said."""

from minibutter.energy.placement import choose_cpus, find_placement, gang_problem
from minibutter.energy.topology import read_topology


def placement(machine, *cpus):
    return find_placement(read_topology(machine.root, cpus))


def test_a_rank_belongs_to_a_package_if_all_its_processors_do(make_tree):
    server = make_tree("server")
    assert placement(server, 0, 1, 8).package == 0
    assert placement(server, 4, 12).package == 1
    assert placement(server, 3, 4).package is None


def test_threads_of_a_core_are_one_core(make_tree):
    server = make_tree("server")
    assert placement(server, 1, 9).cores == (1,)
    assert placement(server, 9).cores == (1,)
    assert placement(server, 1, 2, 9).cores == (1, 2)


def test_ranks_that_nobody_has_bound_get_a_core_each_those_of_a_package_first(make_tree):
    server = make_tree("server")
    server.write("sys/devices/system/cpu/online", "0-15")
    whole = read_topology(server.root, range(16))
    assert choose_cpus(whole, 3) == (0, 1, 2)
    assert choose_cpus(whole, 8) == (0, 1, 2, 3, 4, 5, 6, 7)
    # More ranks than cores: two on a core would be slower than either thinks.
    assert choose_cpus(whole, 9) is None


def test_a_launcher_that_has_bound_ranks_is_right(make_tree):
    server = make_tree("server")
    server.write("sys/devices/system/cpu/online", "0-15")
    assert choose_cpus(read_topology(server.root, range(8)), 2) is None


def test_where_sysfs_tells_nothing_nobody_is_bound_and_there_is_no_gang(make_tree):
    nothing = make_tree()
    assert choose_cpus(read_topology(nothing.root, [0, 1]), 2) is None
    unknown = placement(nothing, 0, 1)
    assert (unknown.package, unknown.cores) == (None, None)
    assert "sysfs does not tell" in gang_problem([unknown])


def test_a_gang_has_a_core_for_each(make_tree):
    server = make_tree("server")

    def problem(*masks):
        return gang_problem([placement(server, *mask) for mask in masks])

    assert problem((0,), (1, 9), (4,)) is None
    assert "rank 1 of the node may use several cores (processors 1-2)" in problem((0,), (1, 2))
    assert "ranks 0, 2 of the node share a core" in problem((0,), (1,), (8,))
