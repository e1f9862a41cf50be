"""Finding, verifying and fetching files, against folders and a web server of the test's own."""

import gzip
import shutil
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minibutter.datasets import DatasetError, catalog, ensure_available, fetch, load
from minibutter.datasets.registry import SHA256

NAME = "505_tecator"
FILE = f"{NAME}.tsv.gz"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256[NAME][0]}\nsize 224993\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no MINIBUTTER_DATA, and a proxy that refuses whatever leaves this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIBUTTER_DATA", raising=False)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable.lower(), raising=False)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path / "cache" / "minibutter" / "pmlb"


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def mirror(tmp_path):
    """A mirror of PMLB that serves a folder: (folder, address)."""

    class SilentHandler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = partial(SilentHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def place(source, *folders):
    """Copy a file to each of some folders, which are made."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / source.name)
        (folder / source.name).chmod(0o644)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(function, *arguments, **options):
    with pytest.raises(DatasetError) as caught:
        function(*arguments, **options)
    return str(caught.value)


# Search


def test_folder_of_the_caller_comes_before_the_environment_and_the_cache(
    data_dir, tmp_path, monkeypatch, cache
):
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    monkeypatch.setenv("MINIBUTTER_DATA", str(ours))
    place(data_dir / FILE, mine, ours, cache)
    for folder in (mine, ours, cache):
        assert ensure_available(NAME, data_dir=mine) == folder / FILE
        (folder / FILE).unlink()


def test_layout_of_pmlbs_own_cache_is_found(data_dir, tmp_path):
    place(data_dir / FILE, tmp_path / NAME)
    assert load(NAME, data_dir=tmp_path).source == str(tmp_path / NAME / FILE)


def test_unpacked_file_is_found_and_encodes_alike(data_dir, tmp_path):
    write(tmp_path / f"{NAME}.tsv", gzip.decompress((data_dir / FILE).read_bytes()))
    unpacked, packed = load(NAME, data_dir=tmp_path), load(NAME, data_dir=data_dir)
    assert unpacked.x.tobytes() == packed.x.tobytes()
    assert unpacked.y.tobytes() == packed.y.tobytes()
    assert unpacked.sha256 != packed.sha256


def test_catalog_tells_which_files_are_here(data_dir, tmp_path):
    place(data_dir / FILE, tmp_path)
    here = {
        entry.info.name for entry in catalog(tmp_path) if entry.kind == "BUTTER" and entry.is_local
    }
    assert here == {NAME}


def test_damaged_file_is_passed_over_when_a_sound_one_follows(data_dir, tmp_path, cache):
    write(tmp_path / FILE, POINTER)
    place(data_dir / FILE, cache)
    assert ensure_available(NAME, data_dir=tmp_path) == cache / FILE


# Damaged files


@pytest.mark.parametrize("file", [FILE, f"{NAME}/{FILE}", f"{NAME}.tsv"])
def test_lfs_pointer_is_recognised(tmp_path, file):
    path = write(tmp_path / file, POINTER)
    message = refusal(load, NAME, data_dir=tmp_path)
    assert f"{path} is a git-LFS pointer" in message
    assert f"`git lfs pull` in that folder or `minibutter data fetch {NAME}`" in message


@pytest.mark.parametrize("n_bytes", [0, 1000, 200_000])
def test_truncated_gzip_is_recognised(data_dir, tmp_path, n_bytes):
    path = write(tmp_path / FILE, (data_dir / FILE).read_bytes()[:n_bytes])
    message = refusal(ensure_available, NAME, data_dir=tmp_path)
    assert f"{path} is a truncated gzip file ({n_bytes} bytes)" in message
    assert f"delete the file and run `minibutter data fetch {NAME}`" in message


@pytest.mark.parametrize("content", [gzip.compress(b"target\n1\n", mtime=0), b"<html>no</html>"])
def test_wrong_checksum_is_shown_with_the_right_one(tmp_path, content):
    import hashlib

    path = write(tmp_path / FILE, content)
    message = refusal(ensure_available, NAME, data_dir=tmp_path)
    found = hashlib.sha256(content).hexdigest()
    assert f"{path} has the SHA-256 {found} where {SHA256[NAME][0]} is expected" in message
    assert "delete the file and run" in message


def test_unpacked_file_of_other_dimensions_is_refused(tmp_path):
    path = write(tmp_path / f"{NAME}.tsv", "a\tb\ttarget\n1\t2\t3\n4\t5\t6\n7\t8\t9\n")
    message = refusal(load, NAME, data_dir=tmp_path)
    assert f"{path} encodes to 3 rows, 6 inputs and 1 outputs" in message
    assert "has 240, 124 and 1" in message


def test_unpacked_mnist_with_impossible_pixels_is_refused(tmp_path):
    path = write(tmp_path / "mnist.tsv", "a\tb\ttarget\n0\t256\t1\n0\t0\t2\n")
    assert f"{path} holds pixels outside 0 to 255" in refusal(load, "mnist", data_dir=tmp_path)


# Downloads


def test_fetch_writes_a_verified_file_that_others_can_read(data_dir, tmp_path, mirror):
    folder, url = mirror
    place(data_dir / FILE, folder / NAME)
    path = fetch(NAME, data_dir=tmp_path / "new" / "data", base_url=url)
    assert path == tmp_path / "new" / "data" / FILE
    assert path.read_bytes() == (data_dir / FILE).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == [FILE]
    assert load(NAME, data_dir=path.parent).info.n_rows == 240


def test_fetch_writes_to_the_environments_folder_and_else_to_the_cache(
    data_dir, tmp_path, monkeypatch, mirror, cache
):
    folder, url = mirror
    place(data_dir / FILE, folder / NAME)
    assert fetch(NAME, base_url=url) == cache / FILE
    monkeypatch.setenv("MINIBUTTER_DATA", str(tmp_path / "ours"))
    assert fetch(NAME, base_url=url) == tmp_path / "ours" / FILE


def test_fetch_replaces_a_damaged_file_and_leaves_a_sound_one_alone(data_dir, tmp_path, mirror):
    folder, url = mirror
    place(data_dir / FILE, folder / NAME)
    write(tmp_path / FILE, POINTER)
    fetch(NAME, data_dir=tmp_path, base_url=url)
    assert (tmp_path / FILE).read_bytes() == (data_dir / FILE).read_bytes()
    (folder / NAME / FILE).unlink()
    assert fetch(NAME, data_dir=tmp_path, base_url=url) == tmp_path / FILE


def test_fetch_leaves_the_older_banana_alone(data_dir, tmp_path, mirror):
    place(data_dir / "banana.tsv.gz", tmp_path)
    assert fetch("banana", data_dir=tmp_path, base_url=mirror[1]) == tmp_path / "banana.tsv.gz"


def test_downloaded_pointer_is_explained_by_the_quota_of_pmlb(tmp_path, mirror):
    folder, url = mirror
    write(folder / NAME / FILE, POINTER)
    message = refusal(fetch, NAME, data_dir=tmp_path / "data", base_url=url)
    assert f"{url}/{NAME}/{FILE} answered with a git-LFS pointer" in message
    assert "LFS quota" in message
    assert f"place a copy of {FILE} in {tmp_path / 'data'}" in message
    assert list((tmp_path / "data").iterdir()) == []


def test_downloaded_file_with_a_wrong_checksum_is_not_kept(tmp_path, mirror):
    folder, url = mirror
    write(folder / NAME / FILE, gzip.compress(b"target\n1\n"))
    message = refusal(fetch, NAME, data_dir=tmp_path / "data", base_url=url)
    assert f"what came from {url}/{NAME}/{FILE} has the SHA-256" in message
    assert SHA256[NAME][0] in message
    assert list((tmp_path / "data").iterdir()) == []


def test_missing_file_on_the_server_is_an_error_with_its_address(tmp_path, mirror):
    message = refusal(fetch, NAME, data_dir=tmp_path / "data", base_url=mirror[1])
    assert "404" in message
    assert f"{mirror[1]}/{NAME}/{FILE}" in message


def test_without_a_network_the_message_says_where_to_place_the_file(tmp_path):
    url = f"http://127.0.0.1:{unused_port()}"
    message = refusal(fetch, NAME, data_dir=tmp_path / "data", base_url=url)
    assert f"could not fetch {NAME} from {url}/{NAME}/{FILE} into {tmp_path / 'data'}" in message
    assert f"place a copy of {FILE} in {tmp_path / 'data'}" in message
    assert "--data-dir or MINIBUTTER_DATA" in message


def test_load_without_file_and_network_names_the_address_of_pmlb(cache):
    message = refusal(load, NAME)
    assert f"https://github.com/EpistasisLab/pmlb/raw/master/datasets/{NAME}/{FILE}" in message
    assert str(cache) in message


def test_folder_that_can_not_be_written_is_an_error_with_its_path(data_dir, tmp_path, mirror):
    folder, url = mirror
    place(data_dir / FILE, folder / NAME)
    write(tmp_path / "file", "")
    message = refusal(fetch, NAME, data_dir=tmp_path / "file" / "data", base_url=url)
    assert f"into {tmp_path / 'file' / 'data'}" in message


def test_fetch_refuses_what_is_not_from_butter():
    assert "'iris' can not be fetched" in refusal(fetch, "iris")
