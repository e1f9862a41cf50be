"""What results cost, in small: the targets hold for real training, and all lines are there."""

import sys

import pytest

from bench import storage
from minibutter import store


@pytest.fixture(scope="module")
def trained():
    """Eight real runs of 600 epochs with their 20 metrics."""
    return storage.train("digits", 1024, 8, 600, None)


def test_epoch_of_a_real_run_takes_at_most_62_bytes(trained, tmp_path):
    storage.write(tmp_path, iter(trained), 4)
    running = storage.bytes_of_epoch(tmp_path)
    store.compact(tmp_path)
    compacted = storage.bytes_of_epoch(tmp_path)
    print(f"{running:.1f} bytes an epoch, {compacted:.1f} after compact")
    assert compacted < running <= storage.LIMIT_BYTES


def test_copies_have_other_ids_and_the_same_numbers(trained):
    copied = list(storage.copies(trained[:2], 5))
    assert len({result.run["run_id"] for result in copied}) == 5
    assert copied[3].epochs is trained[1].epochs


def test_data_that_are_not_there_are_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["storage", "--dataset", str(tmp_path / "none.csv")])
    with pytest.raises(SystemExit, match=r"none\.csv.*--dataset digits"):
        storage.main()


def test_all_targets_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(storage, "N_EPOCHS", 60)
    monkeypatch.setattr(storage, "N_SHORT_RUNS", 40)
    monkeypatch.setattr(storage, "SHORT_EPOCHS", 3)
    arguments = ["storage", "--dataset", "digits", "--epochs", "6", "--runs", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    storage.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 + 2
    seconds = [line for line in lines if line.startswith("seconds for a million")]
    assert [line.split()[-1] for line in seconds] == ["kept"] * 4
    assert "files of 40 short runs, 4 before compact" in lines[-2]
    # A pair of tables, and an empty file that jobs lock.
    assert lines[-2].split()[-2:] == ["3", "kept"]
