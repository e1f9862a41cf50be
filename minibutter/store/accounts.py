"""What became of the energy of every node and job, beside the tables: one line of JSON each.

`pandas.read_json(path, lines=True)` reads it; a job adds its lines at its end.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minibutter.store.files import saying
from minibutter.store.generations import turn
from minibutter.store.manifest import replace_file

ACCOUNTS = "node_energy.jsonl"


def write_accounts(directory: Path, accounts: Sequence[Mapping[str, Any]]) -> None:
    """Add the accounts of a job; nothing is written where there are none.

    Parameters
    ----------
    directory : of the results.
    accounts : of its nodes, from `energy.account.NodeAccount.columns`.
    """
    if not accounts:
        return
    path = directory / ACCOUNTS
    lines = [json.dumps(account, allow_nan=False) + "\n" for account in accounts]
    with saying(f"{path} cannot be written"), turn(directory):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        replace_file(path, before + "".join(lines))


def read_accounts(directory: Path) -> list[dict[str, Any]]:
    """All accounts of a directory, the oldest first; none where no job has written any."""
    path = directory / ACCOUNTS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
