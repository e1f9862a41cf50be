import errno
import json
import os
from pathlib import Path

import pytest

from minibutter.store import StoreError, manifest, open_directory

DOCUMENT = {"name": "first look", "grids": [{"depth": [2, 3]}], "minibutter_version": "0.1.0"}


def files_in(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


def test_new_directory_gets_its_tree_and_manifest(tmp_path):
    out = tmp_path / "deep" / "out"
    assert open_directory(out, "first look", {"e0": 3}, DOCUMENT) == []
    assert files_in(out) == ["epochs", "runs", "sweep.json"]
    stored = json.loads((out / "sweep.json").read_text())
    assert stored == {
        "format_version": manifest.FORMAT_VERSION,
        "name": "first look",
        "requested": {"e0": 3},
        "document": DOCUMENT,
    }


def test_same_sweep_continues(tmp_path):
    open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    before = (tmp_path / "sweep.json").read_text()
    (message,) = open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    assert "continues the sweep 'first look'" in message
    assert (tmp_path / "sweep.json").read_text() == before


def test_sweep_that_asks_for_more_continues_and_is_remembered(tmp_path):
    open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    messages = open_directory(tmp_path, "second look", {"e0": 5, "e1": 4}, {"more": True})
    assert messages[1] == "the sweep is called 'second look' from now on"
    assert messages[2] == "it grows by 6 runs (new experiments: 1)"
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored["requested"] == {"e0": 5, "e1": 4}
    assert stored["document"] == {"more": True}
    with pytest.raises(StoreError):
        open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"e0": 3}, r"does not ask for 1 of its 2 experiments \(2 runs\)"),
        ({"e7": 9}, r"does not ask for 2 of its 2 experiments \(5 runs\)"),
    ],
)
def test_other_sweep_is_refused_and_changes_nothing(tmp_path, requested, message):
    open_directory(tmp_path, "first look", {"e0": 3, "e1": 2}, DOCUMENT)
    before = (tmp_path / "sweep.json").read_text()
    with pytest.raises(StoreError, match=message) as error:
        open_directory(tmp_path, "other", requested, {})
    for part in (str(tmp_path), "'first look'", "'other'", "choose another directory (--out)"):
        assert part in str(error.value)
    assert (tmp_path / "sweep.json").read_text() == before


def test_folder_of_somebody_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"thesis.tex.*choose a new directory"):
        open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    assert files_in(tmp_path) == ["thesis.tex"]


def test_hidden_files_do_not_make_a_directory_somebodys(tmp_path):
    (tmp_path / ".sweep.json.123.tmp").write_text("cut by a ki")
    assert open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format_version": 2, "na',
        "[]",
        "{}",
        '{"format_version": 2, "name": "a", "requested": [1]}',
        '{"format_version": 2, "name": "a", "requested": {"e0": "3"}}',
    ],
)
def test_damaged_manifest_is_named_and_kept(tmp_path, text):
    path = tmp_path / "sweep.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"sweep.json is damaged .* choose a new directory"):
        open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    assert path.read_text() == text


def test_manifest_of_another_format_is_refused(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_text('{"format_version": 1, "name": "a", "requested": {}}')
    with pytest.raises(StoreError, match="format version 1"):
        open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)


def test_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StoreError, match=r"cannot take results.*choose another directory"):
            open_directory(out, "first look", {"e0": 3}, DOCUMENT)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("refusing", ["mkdir", "open", "replace", "touch"])
def test_directory_that_cannot_be_written_is_named_with_a_remedy(
    tmp_path, monkeypatch, number, refusing
):
    """Injected, because the tests may run as root, whom no mode bit stops."""

    def refuse(self, *arguments, **keywords):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, refusing, refuse)
    with pytest.raises(StoreError) as error:
        open_directory(tmp_path / "out", "first look", {"e0": 3}, DOCUMENT)
    assert str(tmp_path / "out") in str(error.value)
    assert os.strerror(number) in str(error.value)
    remedy = "free some space" if number == errno.ENOSPC else "make it writable"
    assert remedy in str(error.value)


def test_kill_while_the_manifest_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    open_directory(tmp_path, "first look", {"e0": 3}, DOCUMENT)
    before = (tmp_path / "sweep.json").read_text()

    def die(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        open_directory(tmp_path, "first look", {"e0": 30}, DOCUMENT)
    assert (tmp_path / manifest.MANIFEST).read_text() == before
    assert not list(tmp_path.glob(".sweep*"))


def test_another_process_may_open_the_directory_at_the_same_moment(tmp_path, monkeypatch):
    """Between the question whether there is a manifest, and what else there is."""
    iterdir, asked = Path.iterdir, {"b": 2}

    def list_late(folder):
        monkeypatch.setattr(Path, "iterdir", iterdir)
        open_directory(tmp_path, "s", asked, {})
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", list_late)
    (message,) = open_directory(tmp_path, "s", asked, {})
    assert "continues the sweep 's'" in message


def test_a_process_of_the_same_number_on_another_machine_disturbs_nobody(tmp_path, monkeypatch):
    touch = Path.touch

    def touch_and_lose(path, **options):
        touch(path, **options)
        path.unlink()

    monkeypatch.setattr(Path, "touch", touch_and_lose)
    assert open_directory(tmp_path, "s", {"b": 2}, {}) == []


def test_fewer_repetitions_ask_for_nothing_and_take_nothing_away(tmp_path):
    open_directory(tmp_path, "s", {"e0": 3, "e1": 2}, DOCUMENT)
    messages = open_directory(tmp_path, "s", {"e0": 1, "e1": 2, "e2": 4}, DOCUMENT)
    assert any("grows by 4 runs" in message for message in messages)
    manifest = json.loads((tmp_path / "sweep.json").read_text())
    assert manifest["requested"] == {"e0": 3, "e1": 2, "e2": 4}
