"""Generated tables in documents: what stands between two markers is written by a benchmark."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
END = "<!-- end of table -->"


def begin(name: str) -> str:
    """The marker before the table of that benchmark."""
    return f"<!-- table: {name} -->"


def write_table(name: str, table: str, document: Path) -> None:
    """Replace what stands between the markers.

    Raises
    ------
    ValueError
        If there are no markers.
    """
    before, _, after = _split(name, document)
    document.write_text(f"{before}{begin(name)}\n{table}\n{END}{after}")


def read_table(name: str, document: Path) -> str:
    """What stands between the markers.

    Raises
    ------
    ValueError
        If there are no markers.
    """
    return _split(name, document)[1].strip()


def _split(name: str, document: Path) -> tuple[str, str, str]:
    before, begun, rest = document.read_text().partition(begin(name))
    table, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{document} has no {begin(name)} ... {END}; put them where it is due")
    return before, table, after
