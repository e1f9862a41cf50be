import os
import socket

import pytest

from minibutter.store.files import replacing, writer_of


def test_file_is_replaced_as_a_whole_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with replacing(path) as file:
        file.write(b"aft")
        file.flush()
        assert path.read_text() == "before"
        file.write(b"er")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_exception_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write_half():
        with replacing(path) as file:
            file.write(b"af")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("host", ["node-1", "node-1.cluster.org", "name with spaces"])
def test_name_of_an_unfinished_file_says_who_writes_it(tmp_path, monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with replacing(tmp_path / "abc-0001.npz"):
        (temporary,) = tmp_path.iterdir()
    assert temporary.name.startswith(".")
    assert writer_of(temporary) == (host.replace(" ", "_"), os.getpid())


@pytest.mark.parametrize("name", [".nfs0001", ".file.npz.tmp", ".file.npz.host.x.tmp", "file.npz"])
def test_name_of_another_form_has_no_writer(tmp_path, name):
    assert writer_of(tmp_path / name) is None
