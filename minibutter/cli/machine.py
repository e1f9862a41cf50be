"""`minibutter machine`: what this machine is, and whether energy can be measured on it."""

from minibutter.cli.options import Json

EXIT_NO_ENERGY = 4
"""Nothing failed, but there is no energy to be measured; 1, 2 and 3 have other meanings."""


def machine(as_json: Json = False) -> None:
    """Describe this machine, measure its speed, and say whether energy can be measured on it.

    Takes a few seconds of one core. Exit code 0 if energy can be measured, 4 if it cannot: then the
    last lines say what would change that.
    """
    import typer

    from minibutter.cli.description import show_machine
    from minibutter.cli.terminal import print_json
    from minibutter.launch import find_mpi_library
    from minibutter.machine import as_document, describe_machine, measure_ceilings

    described = describe_machine()
    ceilings = measure_ceilings(described.topology)
    mpi_library = find_mpi_library()
    if as_json:
        print_json(as_document(described, ceilings) | {"mpi_library": mpi_library})
    else:
        show_machine(described, ceilings, mpi_library)
    if not described.diagnosis.can_measure:
        raise typer.Exit(EXIT_NO_ENERGY)
