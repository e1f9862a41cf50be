"""Putting a directory in order after a kill, before its sweep is resumed.

Nothing is ever deleted but checkpoints of runs that are done, and the hidden temporary files of
processes of this machine that have ended, whose runs were never reported as done. What cannot be
read is moved to `quarantine/`, so that the two tables agree again and pandas, DuckDB or any other
reader can open both folders.
"""

from contextlib import suppress
from pathlib import Path

from minibutter.store.checkpoints import CHECKPOINTS, checkpoint_path, remove_checkpoints
from minibutter.store.files import UnreadableShard, host_name, is_alive, sync, writer_of
from minibutter.store.generations import remove_dead_stages, shared_lock
from minibutter.store.parquet import SCHEMAS, read_pair
from minibutter.store.shards import Shard, visible_shards
from minibutter.store.tables import finished_runs

_AGAIN = "its runs will be run again"


def recover(directory: str | Path) -> list[str]:
    """Finish, clean or set aside what killed processes left; to be called by one rank.

    Commits that were cut between their two renames are finished, and so are exchanges of all files
    (`generations`). Temporary files are removed if their process ran on this machine and has ended.
    Files that are damaged, foreign or without partner are moved, with their partner, to
    `directory/quarantine/`. Hidden files of others stay. Checkpoints of runs that are done are
    removed.
    Pages of the large table are not read here: damage inside them is reported by `read_epochs`.

    Parameters
    ----------
    directory : directory of a sweep.

    Returns
    -------
    list of str
        What was done, one sentence each; empty if all was in order.

    Raises
    ------
    StoreError
        If a file was written by another schema version or is not ours to read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return []
    with shared_lock(directory):
        return [
            *remove_dead_stages(directory),
            *_finish_commits(directory),
            *_remove_dead_files(directory),
            *_set_foreign_files_aside(directory),
            *_set_faulty_pairs_aside(directory),
            *_remove_old_checkpoints(directory),
        ]


def _finish_commits(directory: Path) -> list[str]:
    messages = []
    for shard in _unfinished(directory, "runs"):
        if not shard.closed("epochs").exists() or shard.closed("runs").exists():
            continue
        try:
            read_pair(shard.unfinished("runs"), shard.closed("epochs"), ["run_id"])
            shard.unfinished("runs").replace(shard.closed("runs"))
        except (UnreadableShard, FileNotFoundError) as fault:
            if shard.closed("runs").exists():
                continue  # Its writer lives, and was faster.
            files = [shard.unfinished("runs"), shard.closed("epochs")]
            messages.append(_quarantine(directory, files, f"{fault}; {_AGAIN}"))
        else:
            sync(directory / "runs")
            messages.append(f"finished the interrupted commit of {shard.closed('runs')}")
    return messages


def _remove_dead_files(directory: Path) -> list[str]:
    messages = []
    for table in SCHEMAS:
        for shard in _unfinished(directory, table):
            host, pid = shard.owner() or (None, 0)
            if host == host_name() and not is_alive(pid):
                shard.unfinished(table).unlink(missing_ok=True)
                messages.append(
                    f"removed {shard.unfinished(table)}, left unfinished by process {pid}; {_AGAIN}"
                )
    return messages


def _set_foreign_files_aside(directory: Path) -> list[str]:
    return [
        _quarantine(directory, [path], f"{path} is not a shard, and stops readers of the folder")
        for table in SCHEMAS
        for path in sorted((directory / table).glob("[!.]*"))
        if path.suffix != ".parquet" or path.is_dir()
    ]


def _set_faulty_pairs_aside(directory: Path) -> list[str]:
    messages = []
    for shard in visible_shards(directory):
        try:
            read_pair(shard.closed("runs"), shard.closed("epochs"), ["run_id"])
        except UnreadableShard as fault:
            files = [path for path in map(shard.closed, SCHEMAS) if path.exists()]
            if not files:
                continue  # Its writer lives, and has taken back what its disk refused.
            messages.append(_quarantine(directory, files, f"{fault}; {_AGAIN}"))
    return messages


def _remove_old_checkpoints(directory: Path) -> list[str]:
    messages = []
    for temporary in sorted((directory / CHECKPOINTS).glob(".*.tmp")):
        host, pid = writer_of(temporary) or (None, 0)
        if host == host_name() and not is_alive(pid):
            temporary.unlink(missing_ok=True)
            messages.append(f"removed {temporary}, left unfinished by process {pid}")
    kept = {path.stem for path in (directory / CHECKPOINTS).glob("[!.]*.npz")}
    if not kept:
        return messages
    statuses, _ = finished_runs(directory)
    done = sorted(key for key in kept if statuses.get(key, "failed") != "failed")
    remove_checkpoints(directory, done)
    messages += [f"removed {checkpoint_path(directory, key)}: its run is done" for key in done]
    return messages


def _quarantine(directory: Path, files: list[Path], reason: str) -> str:
    for path in files:
        folder = directory / "quarantine" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        target, n_before = folder / path.name, 0
        while target.exists():
            n_before += 1
            target = folder / f"{path.name}.{n_before}"
        # Jobs of an array begin at the same moment: another may have been faster.
        with suppress(FileNotFoundError):
            path.replace(target)
    names = " and ".join(str(path.relative_to(directory)) for path in files)
    return f"moved {names} to {directory / 'quarantine'}: {reason}"


def _unfinished(directory: Path, table: str) -> list[Shard]:
    paths = sorted((directory / table).glob(".part-*.tmp"))
    return [Shard(directory, path.name.removeprefix(".").removesuffix(".tmp")) for path in paths]
