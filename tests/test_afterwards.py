"""The commands on a directory of results: what they print, what they end with, what they refuse."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibutter.store.parquet import write_table

SWEEP = 'dataset = "iris"\nsize = [100, 200]\ndepth = 3\nepochs = 2\nbatch_size = 16\n'
IMPOSSIBLE = 'dataset = "digits"\nsize = [32, 700]\ndepth = 3\nepochs = 1\nrepetitions = 2\n'


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def run(call, tmp_path, kept):
    """A function: the results of a sweep file, trained once for all tests."""

    def trained(name, text):
        target = tmp_path / "results" / name
        if name not in kept:
            (tmp_path / f"{name}.toml").write_text(text)
            call("sweep", "run", f"{name}.toml")
            kept[name] = shutil.copytree(target, tmp_path.parent / f"kept-{name}")
        elif not target.exists():
            shutil.copytree(kept[name], target)
            (tmp_path / f"{name}.toml").write_text(text)
        return f"results/{name}"

    return trained


@pytest.fixture
def done(run):
    return run("s", SWEEP + "repetitions = 3\n")


@pytest.fixture
def half_failed(run):
    return run("half", IMPOSSIBLE)


def test_status_says_how_far_a_sweep_is(call, done):
    code, out, err = call("status", done)
    assert (code, err) == (0, "")
    assert f"s: 6 runs of 2 experiments in {done}" in out
    assert "done         6  100\n" in out
    assert "nothing is left to do" in out
    told = json.loads(call("status", done, "--json")[1])
    assert (told["done"], told["diverged"], told["failed"], told["pending"]) == (6, 0, 0, 0)
    assert told["core_s_done"] > 0


def test_status_of_a_growing_sweep_says_what_is_left_for_so_many_ranks(call, done, tmp_path):
    manifest = tmp_path / done / "sweep.json"
    told = json.loads(manifest.read_text())
    told["requested"] = dict.fromkeys(told["requested"], 23)
    manifest.write_text(json.dumps(told))
    for ranks, ending in ((1, "on 1 rank\n"), (4, "on 4 ranks\n")):
        code, out, _ = call("status", done, "--ranks", ranks)
        assert code == 0
        assert out.endswith(ending)
    one, four = (
        json.loads(call("status", done, "--json", "--ranks", ranks)[1]) for ranks in (1, 4)
    )
    assert one["pending"] == 40
    assert four["left_s"] == pytest.approx(one["left_s"] / 4)


def test_status_groups_failures_and_retry_lets_the_sweep_try_them_again(call, half_failed):
    _, out, _ = call("status", half_failed)
    assert "failed (0 of them are tried again by the next `minibutter sweep run`" in out
    assert "  2  size 32 is unreachable" in out
    assert "0 runs of 2 experiments to do, 4 already done" in call("sweep", "run", "half.toml")[1]

    code, out, _ = call("retry", half_failed)
    assert code == 0
    assert "forgot 2 failed runs:\n  2  size 32 is unreachable" in out
    _, out, _ = call("status", half_failed)
    assert "pending      2  50" in out
    assert "the rest takes no time" in out
    code, out, _ = call("sweep", "run", "half.toml")
    assert (code, "2 runs of 2 experiments to do, 2 already done" in out) == (3, True)
    assert json.loads(call("retry", half_failed, "--json")[1])["forgotten"] == 2
    assert call("retry", half_failed)[1] == f"no run has failed in {half_failed}\n"


def test_compact_says_what_it_did_and_the_sweep_goes_on(call, done, tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP + "repetitions = 5\n")
    call("sweep", "run", "s.toml")
    before = pd.read_parquet(tmp_path / done / "epochs")
    code, out, _ = call("compact", done)
    assert code == 0
    assert out.startswith(f"{done}: 4 files (")
    assert "are now 2 (" in out
    assert "10 runs, 20 epochs" in out
    after = pd.read_parquet(tmp_path / done / "epochs")
    order = ["run_id", "epoch"]
    pd.testing.assert_frame_equal(after, before.sort_values(order, ignore_index=True))
    assert call("compact", done)[1] == f"{done} is compact: 2 files, 10 runs, 20 epochs\n"
    assert "0 runs of 2 experiments to do, 10 already done" in call("sweep", "run", "s.toml")[1]
    assert json.loads(call("compact", done, "--json")[1])["n_runs"] == 10


def change(directory, table, column, value):
    (path,) = (directory / table).glob("*.parquet")
    stored = pq.read_table(path)
    place, field = stored.column_names.index(column), stored.field(column)
    values = pa.array([value] * len(stored), field.type)
    write_table(stored.set_column(place, field, values), path)


def test_verify_says_same_or_different_and_ends_accordingly(call, done, tmp_path):
    code, out, _ = call("verify", done, "--sample", "50%")
    assert code == 0
    assert out.endswith("3 of 6 finished runs done again: 3 the same to the last bit\n")
    assert len(out.splitlines()) == 4
    change(tmp_path / done, "epochs", "test_loss", 1.5)
    code, out, _ = call("verify", done, "--sample", 1)
    assert code == 5
    assert "DIFFERENT from epoch 1 in test_loss" in out
    change(tmp_path / done, "runs", "cpu_model", "another")
    code, out, _ = call("verify", done, "--sample", 1)
    assert code == 6
    assert "  of 1 run: cpu_model was another, is " in out
    code, out, _ = call("verify", done, "--sample", 2, "--json")
    told = json.loads(out)
    assert (code, told["exit_code"], len(told["repeated"])) == (6, 6, 2)
    assert told["repeated"][0]["difference"]["first_epoch"] == 1


def test_merge_shows_other_numbers_and_asks_who_counts(call, done, tmp_path):
    shutil.copytree(tmp_path / done, tmp_path / "other")
    change(tmp_path / "other", "epochs", "test_loss", 1.5)
    code, out, err = call("merge", "both", done, "other")
    assert code == 2
    assert "test_loss           1" in out
    assert "6 of the runs have other numbers in another directory; say with --prefer" in err
    assert not (tmp_path / "both").exists()
    code, out, _ = call("merge", "both", done, "other", "--prefer", "other")
    assert code == 0
    assert out.endswith("both has 6 runs\n")
    assert set(pd.read_parquet(tmp_path / "both" / "epochs")["test_loss"]) == {1.5}
    code, out, _ = call("merge", "both", "other", "--json")
    assert (code, json.loads(out)["new"]) == (0, {"other": 0})


def test_merge_of_different_processors_says_so(call, done, tmp_path):
    shutil.copytree(tmp_path / done, tmp_path / "other")
    change(tmp_path / "other", "epochs", "test_loss", 1.5)
    change(tmp_path / "other", "runs", "cpu_model", "another")
    assert "done on different processors, " in call("merge", "both", done, "other")[1]


@pytest.mark.parametrize("format_", ["butter", "csv"])
def test_export_names_what_it_wrote(call, half_failed, tmp_path, format_):
    code, out, _ = call("export", half_failed, "there", "--format", format_)
    assert code == 0
    first, *paths = out.splitlines()
    assert (
        first
        == {
            "butter": "2 runs of 1 experiment; 2 that failed or cannot be read are left out",
            "csv": "4 runs of 2 experiments",
        }[format_]
    )
    assert paths
    assert all((tmp_path / path).exists() for path in paths)
    code, _, err = call("export", half_failed, "there")
    assert (code, "there exists; give a folder that does not" in err) == (2, True)
    told = json.loads(call("export", half_failed, "again", "--format", format_, "--json")[1])
    assert [path.replace("again", "there") for path in told["paths"]] == paths


COMMANDS = ["status", "retry", "compact", "verify", "summarize", "export", "merge"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["absent", "empty", "thesis", "file"])
def test_what_is_no_directory_of_results_is_one_line(call, tmp_path, command, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    arguments = {"export": (place, "out"), "merge": ("out", place)}.get(command, (place,))
    code, out, err = call(command, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {place} ")
    assert err.count("\n") == 1
    assert "give" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_directory_in_which_nothing_is_finished_yet(call, done, tmp_path, command):
    (tmp_path / "begun").mkdir()
    shutil.copy(tmp_path / done / "sweep.json", tmp_path / "begun")
    arguments = {"export": ("begun", "out"), "merge": ("out", "begun")}.get(command, ("begun",))
    code, out, err = call(command, *arguments)
    if command == "status":
        assert (code, "pending      6  100" in out) == (0, True)
        assert "left: not known, because no run has been measured yet" in out
    else:
        assert code == 2
        assert "begun holds no finished run yet; start its sweep" in err
        assert not (tmp_path / "out").exists()
