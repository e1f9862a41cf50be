"""`sweep.json`: which sweep a directory belongs to.

A directory holds one sweep. The manifest lists the experiments that were asked for and how often,
so that the same sweep, or one that asks for more, continues where the results end, while another
sweep is refused before it mixes its results with those that are there.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibutter.store.files import StoreError, remedy, replacing
from minibutter.store.parquet import SCHEMAS

MANIFEST = "sweep.json"
FORMAT_VERSION = 2
"""Raised when the entries, or the ids among them, are not what they were. 2: ids of version 2."""


def open_directory(
    directory: str | Path,
    name: str,
    requested: Mapping[str, int],
    document: Mapping[str, Any],
) -> list[str]:
    """Create a directory for a sweep, or continue in the one it has; to be called by one rank.

    Parameters
    ----------
    directory : where the results shall stand.
    name : name of the sweep, for messages.
    requested : for every experiment id the number of repetitions asked for.
    document : the sweep as it was written, and the version of minibutter; kept, not read.

    Returns
    -------
    list of str
        What continues or grows, one sentence each; empty for a new directory.

    Raises
    ------
    StoreError
        If the directory holds another sweep or other files, cannot be written, or its manifest
        cannot be read.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stored = read_manifest(directory)
        if stored is None and (others := _others(directory)):
            # Another process may have opened it since.
            stored = read_manifest(directory)
            if stored is None:
                _refuse(directory, others)
        messages = [] if stored is None else _continue(directory, stored, name, requested)
        known = {} if stored is None else stored["requested"]
        # The manifest goes first: a kill after it leaves a directory that the sweep still owns.
        manifest = {
            "format_version": FORMAT_VERSION,
            "name": name,
            # Fewer repetitions than before ask for nothing new, and take nothing away.
            "requested": {k: max(n, known.get(k, 0)) for k, n in requested.items()},
            "document": dict(document),
        }
        replace_file(directory / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for table in SCHEMAS:
            (directory / table).mkdir(exist_ok=True)
            _try_writing(directory / table)
    except OSError as error:
        raise StoreError(
            f"{directory} cannot take results ({error.strerror or error}: {error.filename}); "
            f"{remedy(error)}"
        ) from error
    return messages


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """What `open_directory` wrote: format_version, name, requested, document; None without it.

    Raises
    ------
    StoreError
        If it is damaged, may not be read, or another version wrote it.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, name, requested = (manifest[k] for k in ("format_version", "name", "requested"))
        is_sound = isinstance(name, str) and all(isinstance(n, int) for n in requested.values())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {remedy(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(_damaged(path, str(error))) from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this minibutter reads version {FORMAT_VERSION}; "
            "use the minibutter that wrote it, or another directory (--out)"
        )
    if not is_sound:
        raise StoreError(_damaged(path, "its entries have other types"))
    return manifest


def _others(directory: Path) -> list[str]:
    # Hidden files are not somebody's results: folders of some systems are born with them.
    return sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))


def _refuse(directory: Path, others: list[str]) -> None:
    listed = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    raise StoreError(
        f"{directory} holds other files ({listed}) "
        f"and no {MANIFEST}; choose a new directory (--out), or bring its {MANIFEST} back"
    )


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path} is damaged ({why}); the results beside it are untouched: put back a copy of the "
        "file, or choose a new directory (--out)"
    )


def _continue(
    directory: Path, stored: dict[str, Any], name: str, requested: Mapping[str, int]
) -> list[str]:
    before = stored["requested"]
    gone = [key for key in before if key not in requested]
    if gone:
        n_runs = sum(before[key] for key in gone)
        raise StoreError(
            f"{directory} holds another sweep, {stored['name']!r}: {name!r} does not ask for "
            f"{len(gone)} of its {len(before)} experiments ({n_runs} runs); choose another "
            "directory (--out), or start the original file with nothing taken away from it"
        )
    messages = [f"{directory} continues the sweep {stored['name']!r}"]
    if name != stored["name"]:
        messages.append(f"the sweep is called {name!r} from now on")
    n_experiments = len(requested) - len(before)
    n_runs = sum(max(n - before.get(key, 0), 0) for key, n in requested.items())
    if n_runs:
        messages.append(f"it grows by {n_runs} runs (new experiments: {n_experiments})")
    return messages


def replace_file(path: Path, text: str) -> None:
    """Let a file hold another text, all of it or none, whatever happens meanwhile."""
    with replacing(path) as file:
        file.write(text.encode())


def _try_writing(folder: Path) -> None:
    probe = folder / f".probe.{os.getpid()}.tmp"
    probe.touch()
    # A process of the same number, on another machine, may have been faster.
    probe.unlink(missing_ok=True)
