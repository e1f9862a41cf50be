"""Accounts of nodes: lines that jobs add, all or none."""

import json

import pandas as pd
import pytest

from minibutter.store import read_accounts, write_accounts

ACCOUNT = {"hostname": "node-1", "total_j": 10.5, "idle_j": None, "ranks": [0, 1]}


def test_jobs_add_their_lines(tmp_path):
    write_accounts(tmp_path, [ACCOUNT, ACCOUNT | {"hostname": "node-2"}])
    write_accounts(tmp_path, [])
    write_accounts(tmp_path, [ACCOUNT | {"total_j": 3.0}])
    assert [a["hostname"] for a in read_accounts(tmp_path)] == ["node-1", "node-2", "node-1"]
    frame = pd.read_json(tmp_path / "node_energy.jsonl", lines=True)
    assert frame["total_j"].tolist() == [10.5, 10.5, 3.0]


def test_a_directory_without_accounts_has_none(tmp_path):
    write_accounts(tmp_path, [])
    assert read_accounts(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_what_is_no_number_of_json_is_refused_and_leaves_the_file_as_it_was(tmp_path):
    write_accounts(tmp_path, [ACCOUNT])
    with pytest.raises(ValueError, match="JSON"):
        write_accounts(tmp_path, [ACCOUNT | {"total_j": float("nan")}])
    assert read_accounts(tmp_path) == [json.loads(json.dumps(ACCOUNT))]
