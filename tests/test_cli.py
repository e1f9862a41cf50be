"""The command line: what it prints, what it ends with, and what it says to mistakes."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import pandas as pd
import pytest
from typer.testing import CliRunner

from minibutter import cli, hierarchy, store
from minibutter.nn.kernels import jit
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.network import ACTIVATIONS, DTYPES, INITIALIZERS
from minibutter.nn.optimizers import OPTIMIZERS
from minibutter.nn.parameterization import GAUSSIAN, PARAMETERIZATIONS

README = Path(__file__).parents[1] / "README.md"

SMALL = ["--dataset", "iris", "--size", "100", "--depth", "3", "--batch-size", "16"]


def test_train_stores_tables_and_prints_where_they_are(call, tmp_path):
    code, out, _ = call("train", *SMALL, "--repetitions", 2, "--epochs", 3, "--out", "here")
    assert code == 0
    assert "2 runs of 1 experiments" in out
    assert "here/epochs" in out
    assert len(pd.read_parquet(tmp_path / "here" / "epochs")) == 6
    assert len(pd.read_parquet(tmp_path / "here" / "runs")) == 2


def test_train_again_does_only_what_is_missing(call):
    arguments = ("train", *SMALL, "--epochs", 2, "--out", "here")
    call(*arguments, "--repetitions", 2)
    _, out, _ = call(*arguments, "--repetitions", 3)
    assert "1 runs of 1 experiments to do, 2 already done" in out


def test_train_packs_as_many_repetitions_as_it_is_told_to(call, tmp_path):
    arguments = ("train", *SMALL, "--epochs", 2, "--repetitions", 4, "--out", "here")
    assert call(*arguments, "--lanes", 4)[0] == 0
    assert set(pd.read_parquet(tmp_path / "here" / "runs")["lanes"]) == {4}
    assert "0 runs of 1 experiments to do, 4 already done" in call(*arguments, "--lanes", 1)[1]


def test_train_as_json_is_json_and_nothing_else(call):
    code, out, _ = call("train", *SMALL, "--epochs", 2, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["runs"] == 1
    assert document["experiments"][0]["num_parameters"] > 80
    assert document["experiments"][0]["energy_j_median"] is None or (
        document["experiments"][0]["energy_j_median"] > 0
    )


def test_train_takes_explicit_widths(call):
    arguments = ("train", "--dataset", "iris", "--epochs", 1, "--json", "--widths")
    document = json.loads(call(*arguments, "5,4,3")[1])
    assert document["experiments"][0]["num_parameters"] == 25 + 24 + 15
    code, _, err = call(*arguments, "5,x,3")
    assert (code, "--widths 5,x,3: write whole numbers" in err) == (2, True)


def test_sweep_run_and_plan_and_summarize_agree(call, tmp_path):
    (tmp_path / "s.toml").write_text(
        'dataset = "iris"\nsize = [100, 200]\ndepth = 3\nepochs = 2\nbatch_size = 16\n'
        "repetitions = 2\n"
    )
    code, out, _ = call("sweep", "plan", "s.toml")
    assert code == 0
    assert "s: 4 runs of 2 experiments" in out
    assert not (tmp_path / "results").exists()
    planned = json.loads(call("sweep", "plan", "s.toml", "--json")[1])
    assert call("sweep", "run", "s.toml")[0] == 0
    summary = json.loads(call("summarize", "results/s", "--json")[1])
    assert {row["experiment_id"] for row in summary} == {
        row["experiment_id"] for row in planned["experiments"]
    }
    assert (tmp_path / "results" / "s" / "summary" / "epochs.parquet").is_file()


def test_sizes_of_tiles_are_an_axis_of_a_sweep_and_tell_its_experiments_apart(call, tmp_path):
    (tmp_path / "s.toml").write_text(
        'dataset = "iris"\nsize = 100\ndepth = 3\nepochs = 1\nbatch_size = 16\ntile_rows = [3, 7]\n'
    )
    code, out, _ = call("sweep", "run", "s.toml")
    assert code == 0
    assert "tile rows" in out
    runs = pd.read_parquet(tmp_path / "results" / "s" / "runs")
    assert sorted(runs["tile_rows_used"]) == [3, 7]


def test_a_sweep_with_an_unreachable_size_runs_the_rest_and_ends_with_3(call, tmp_path):
    (tmp_path / "s.toml").write_text(
        'dataset = "digits"\nsize = [32, 1024]\ndepth = 3\nepochs = 1\n'
    )
    code, out, _ = call("sweep", "run", "s.toml")
    assert code == 3
    assert "1 failed: size 32 is unreachable" in out
    runs = pd.read_parquet(tmp_path / "results" / "s" / "runs")
    assert sorted(runs["status"]) == ["completed", "failed"]


def test_plot_draws_a_figure(call, tmp_path):
    call("train", *SMALL, "--epochs", 3, "--out", "here")
    code, out, _ = call("plot", "here")
    assert code == 0
    assert (tmp_path / out.strip()).read_bytes().startswith(b"\x89PNG")
    assert call("plot", "here", "--out", "curve.svg")[0] == 0
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_plot_says_what_it_cannot_draw(call, tmp_path):
    (tmp_path / "s.toml").write_text('dataset = "digits"\nsize = 32\ndepth = 3\nepochs = 1\n')
    call("sweep", "run", "s.toml")
    code, _, err = call("plot", "results/s")
    assert (code, "no experiment has a trained run" in err) == (2, True)
    call("train", *SMALL, "--epochs", 1, "--out", "here")
    code, _, err = call("plot", "here", "--out", "curve.xyz")
    assert (code, "curve.xyz" in err, "Traceback" in err) == (2, True, False)


@pytest.mark.usefixtures("server_caches")
def test_hierarchy_shows_sets_and_bytes_in_tables_json_and_a_figure(call, tmp_path):
    network = ("hierarchy", "--dataset", "iris", "--widths", "40,30,3", "--batch-size", 64)
    code, out, _ = call(*network, "--plot", "it.png")
    assert code == 0
    assert "parameter2x_dataset" in out
    assert "not measured" in out
    assert (tmp_path / "it.png").stat().st_size > 10_000
    _, out, _ = call(*network, "--json", "--cache-state", "cold", "--kernel", "naive")
    told = json.loads(out)
    assert told["num_parameters"] == 5 * 40 + 41 * 30 + 31 * 3
    assert sum(phase["flops"] for phase in told["phases"]) == told["flops_per_epoch"]
    moved = sum(phase["traffic_dram_bytes"] for phase in told["phases"])
    assert moved == pytest.approx(told["traffic_dram_bytes"])
    assert moved > 0


@pytest.mark.usefixtures("server_caches")
def test_hierarchy_takes_dimensions_instead_of_a_data_set(call):
    dimensions = ("--inputs", 7, "--outputs", 3, "--rows", 500, "--size", 1000, "--depth", 3)
    code, out, _ = call("hierarchy", *dimensions, "--json")
    assert code == 0
    assert json.loads(out)["network"]["n_inputs"] == 7
    code, out, _ = call("hierarchy", *dimensions, "--kernel", "blas")
    assert code == 0
    assert "not known of kernel 'blas'" in out


@pytest.mark.parametrize(
    ("options", "slices"),
    [
        ((), 1),
        (("--slices", 3), 3),
        (("--data-parallel",), 2),
        (("--data-parallel", "--slices", 5), 5),
    ],
)
def test_train_cuts_batches_into_the_slices_that_are_asked_for(call, tmp_path, options, slices):
    network = ("--dataset", "iris", "--widths", "5,3", "--epochs", 1, "--batch-size", 20)
    code, _, _ = call("train", *network, *options, "--out", tmp_path / "out")
    assert code == 0
    assert store.read_runs(tmp_path / "out")["slices"].tolist() == [slices]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data-parallel", "--slices", 1), "has nothing to share out"),
        (("--slices", 21), "slices is 21; a batch of 20 rows can be cut into 1 to 20"),
        (("--slices", 0), "slices = 0: must be greater than or equal to 1"),
        (("--slices", 2, "--kernel", "blas"), "kernel is 'blas'"),
    ],
)
def test_slices_that_cannot_be_are_refused_in_one_line(call, options, message):
    network = ("--dataset", "iris", "--widths", "5,3", "--epochs", 1, "--batch-size", 20)
    code, _, error = call("train", *network, *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", 100, "--depth", 3], "either --dataset, or --inputs"),
        (["--dataset", "iris", "--inputs", 3, "--outputs", 2], "either --dataset, or --inputs"),
        (["--dataset", "iris"], "size and depth missing"),
        (["--inputs", 3, "--outputs", 2, "--widths", "5,3"], "there are 2 outputs"),
        (["--dataset", "iris", "--widths", "5,3", "--cache-state", "hot"], "cache_state = 'hot'"),
        (["--dataset", "iris", "--widths", "5,3", "--plot", "it.xyz"], "--plot it.xyz"),
    ],
)
@pytest.mark.usefixtures("server_caches")
def test_hierarchy_that_cannot_be_shown_is_one_line(call, arguments, message):
    code, _, error = call("hierarchy", *arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("unknown_caches")
def test_hierarchy_without_the_sizes_of_the_caches_shows_the_sets_and_what_is_missing(call):
    network = ("hierarchy", "--dataset", "iris", "--widths", "40,30,3")
    reason = "sysfs tells of no data cache of level 1 of CPU 0-1"
    code, out, _ = call(*network)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith(("parameter", "bwd_layer"))]
    assert len(rows) == 4
    assert all(row.endswith("unknown") for row in rows)
    assert f"bytes cannot be predicted for unknown caches: {reason}" in out
    told = json.loads(call(*network, "--json")[1])
    assert (told["caches_bytes"], told["phases"], told["traffic_l1_bytes"]) == ({}, [], None)
    assert (told["traffic_quality"], reason in told["traffic_reason"]) == ("unavailable", True)
    code, _, err = call(*network, "--plot", "it.png")
    assert (code, reason in err, err.count("\n")) == (2, True, 1)
    code, _, err = call("train", *SMALL, "--cache-state", "cold")
    assert (code, "with cache_state = 'warm'" in err, err.count("\n")) == (2, True, 1)


def test_a_level_of_unknown_size_may_hold_what_the_level_above_does_not(
    call, with_caches, monkeypatch
):
    topology = with_caches("x3d", 0)
    assert hierarchy.machine_caches() == {1: 32 * 2**10, 2: 2**20, 3: 24 * 2**20}
    caches = [replace(c, problem="9 or 8") if c.level == 2 else c for c in topology.caches]
    changed = replace(topology, caches=tuple(caches))
    monkeypatch.setattr(hierarchy, "machine_topology", lambda: changed)
    assert hierarchy.machine_caches() == {1: 32 * 2**10, 2: None, 3: 24 * 2**20}
    _, out, _ = call("hierarchy", "--inputs", 9, "--outputs", 2, "--widths", "9,2")
    places = dict(re.findall(r"^(\w+) .* (level 1|unknown) *$", out, re.MULTILINE))
    assert places["bwd_layer"] == "level 1"
    assert places["parameter2x_dataset"] == "unknown"
    assert re.search(r"\(level 2\) +unknown", out)
    assert "unknown caches: 9 or 8" in out


def test_data_list_names_every_set_with_its_dimensions(call):
    _, out, _ = call("data", "list")
    assert "wine_quality_white" in out
    rows = {row["name"]: row for row in json.loads(call("data", "list", "--json")[1])}
    assert rows["mnist"]["n_inputs"] == 784
    assert rows["digits"]["is_local"]


def test_data_show_reads_the_data(call, data_dir):
    code, out, _ = call("data", "show", "nursery", "--data-dir", data_dir)
    assert code == 0
    assert "n_inputs     26" in out
    assert "12958" in out


compiles = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT"
)


@compiles
def test_warmup_says_where_the_kernels_are_and_finds_them_the_next_time(call):
    assert call("warmup", "--dtype", "float32")[0] == 0
    assert jit.is_ready("float32")
    code, out, _ = call("warmup", "--dtype", "float32")
    first, second = out.splitlines()
    assert (code, first) == (0, f"kernels are kept in {jit.kept.directory}")
    assert re.fullmatch(r"float32: found, \d+\.\d s", second)


@compiles
def test_warmup_compiles_what_measured_runs_need_where_it_is_asked_for(call, monkeypatch):
    compiled = []

    def compile_moment_kernels(dtype):
        compiled.append(dtype)

    monkeypatch.setattr("minibutter.nn.measured.compile_moment_kernels", compile_moment_kernels)
    monkeypatch.setattr(jit, "is_ready", lambda kernels: True)
    assert call("warmup", "--dtype", "float32")[0] == 0
    assert compiled == []
    assert call("warmup", "--dtype", "float32", "--measure", "noise_scale")[0] == 0
    assert compiled == ["float32"]
    monkeypatch.setattr(jit, "is_ready", lambda kernels: not kernels.endswith("-moments"))
    code, _, err = call("warmup", "--dtype", "float32", "--measure", "noise_scale")
    assert (code, "cannot be kept" in err) == (2, True)
    code, _, err = call("warmup", "--measure", "norms")
    assert (code, err) == (2, "error: --measure norms: it must be noise_scale\n")


def test_train_measures_and_lets_the_batch_follow(call, tmp_path):
    rule = (
        "--batch-rule",
        "noise_scale",
        "--batch-exchange-rate",
        "300",
        "--batch-size-max",
        "100",
    )
    arguments = (*SMALL, "--epochs", 4, "--measure", "noise_scale", *rule, "--out", tmp_path)
    code, _, err = call("train", *arguments)
    assert (code, err) == (0, "")
    epochs = store.read_epochs(tmp_path)
    assert epochs["noise_trace"].notna().all()
    assert epochs["batch_size_used"].nunique() > 1


@compiles
def test_warmup_compiles_all_types_unless_one_is_named(call, monkeypatch):
    compiled = []

    def compile_kernels(dtype):
        with jit.compile_once(dtype):
            compiled.append(dtype)
            jit.kept.n_kernels += 3

    monkeypatch.setattr("minibutter.nn.training.compile_kernels", compile_kernels)
    _, out, _ = call("warmup")
    assert compiled == list(DTYPES)
    assert [line.partition(",")[0] for line in out.splitlines()[1:]] == [
        f"{dtype}: 3 kernels compiled" for dtype in DTYPES
    ]


@compiles
@pytest.mark.parametrize("is_there", [False, True], ids=["no folder", "full disk"])
def test_warmup_that_cannot_keep_kernels_says_what_to_do(call, monkeypatch, tmp_path, is_there):
    kept = jit.Kept(tmp_path if is_there else None, error=OSError("No space left on device"))
    monkeypatch.setattr(jit, "kept", kept)
    code, _, err = call("warmup", "--dtype", "float32")
    assert code == 2
    assert "every process will compile for itself" in err
    assert "let NUMBA_CACHE_DIR name a folder that can be written" in err
    assert ("No space left" in err) == is_there
    assert err.count("\n") == 1


def test_warmup_without_compiler_has_nothing_to_do(call, monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    code, _, err = call("warmup")
    assert (code, err) == (2, "error: NUMBA_DISABLE_JIT is set: nothing is compiled\n")


# ---------------------------------------------------------------------------------------------
# Bad input: one line on stderr, exit code 2, no traceback


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "wine_white", "--size", "64", "--depth", "2"],
         "there is no data set 'wine_white'; did you mean 'wine"),
        (["train", "--dataset", "mnist", "--size", "1024", "--depth", "2"],
         "size 1024 is unreachable .* nearest reachable size: 1006"),
        (["train", *SMALL, "--batch-size", "5000"],
         "batch_size is 5000, but iris has 120 training rows; it must be between 1 and 120"),
        (["train", *SMALL, "--learning-rate", "-0.1"], r"learning.rate = -0\.1: .*greater than 0"),
        (["train", *SMALL, "--momentum", "0.9"], "momentum = 0.9 with optimizer = 'adam'"),
        (["train", *SMALL, "--kernel", "magic"], "one of naive, blocked, tiled, blas"),
        (["train", *SMALL, "--tile-rows", "17"], "tile_rows is 17; it must be at most 16"),
        (["train", *SMALL, "--block-depth", "0"], "block_depth = 0: must be greater than or equal"),
        (["train", *SMALL, "--lanes", "many"], "lanes = 'many': must be auto or a whole number"),
        (["sweep", "run", "--lanes", "17"], "lanes = '17': must be auto or a whole number from 1"),
        (["train", "--dataset", "iris"], "size and depth missing"),
        (["train", "--dataset", "no/such.csv", "--target", "y", "--size", "9", "--depth", "2"],
         "there is no file .*such.csv"),
        (["sweep", "run", "nowhere.toml"], "no such file"),
        (["sweep", "plan", "nowhere.toml"], "no such file"),
        (["summarize", "nowhere"], "nowhere"),
        (["plot", "nowhere"], "nowhere"),
        (["data", "show", "iriss"], "did you mean 'iris'"),
        (["data", "fetch", "poker"], "poker"),
        (["warmup", "--dtype", "float16"], "float16: it must be one of float32, float64, all"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert pd.Series([err]).str.contains(message, regex=True).all(), err
    assert "Traceback" not in err + out


def test_a_typo_in_a_sweep_file_is_named(call, tmp_path):
    (tmp_path / "s.toml").write_text('dataset = "iris"\nsizes = 100\ndepth = 3\n')
    code, _, err = call("sweep", "run", "s.toml")
    assert (code, err) == (2, "error: s.toml: sizes: unknown key; did you mean size?\n")


def test_a_data_file_with_a_missing_value_or_an_empty_column_is_named(call, tmp_path):
    rows = [f"{i},{i * 3 % 29},{i % 2}" for i in range(40)]
    (tmp_path / "nan.csv").write_text("\n".join(["a,b,y", *rows[:20], "7,,1", *rows[20:]]))
    (tmp_path / "empty.csv").write_text("\n".join(["a,b,y", *(f"{i},,{i % 2}" for i in range(9))]))
    for name in ("nan.csv", "empty.csv"):
        code, _, err = call(
            "train", "--dataset", name, "--target", "y", "--size", "30", "--depth", "2"
        )
        assert code == 2
        assert name in err
        assert "'b'" in err or '"b"' in err or " b " in err, err


def test_a_directory_that_holds_another_sweep_is_refused(call):
    call("train", *SMALL, "--epochs", 1, "--out", "here")
    code, _, err = call("train", *SMALL, "--epochs", 2, "--out", "here")
    assert code == 2
    assert "another sweep" in err
    assert "--out" in err


def test_a_directory_that_cannot_be_written_is_refused(call):
    code, _, err = call("train", *SMALL, "--epochs", 1, "--out", "/proc/results")
    assert code == 2
    assert "/proc/results" in err


def test_a_corrupt_shard_is_set_aside_and_its_runs_are_done_again(call, tmp_path):
    arguments = ("train", *SMALL, "--epochs", 2, "--out", "here", "--repetitions", 2)
    call(*arguments)
    shard = next((tmp_path / "here" / "epochs").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    _, _, err = call("summarize", "here")
    assert shard.name in err
    code, out, _ = call(*arguments)
    assert code == 0
    assert shard.name in out
    assert "2 runs of 1 experiments to do" in out
    assert len(pd.read_parquet(tmp_path / "here" / "epochs")) == 4


# ---------------------------------------------------------------------------------------------
# Help and documents


GROUPS = [
    (cli.app, ()),
    (cli.sweep_app, ("sweep",)),
    (cli.energy_app, ("energy",)),
    (cli.data_app, ("data",)),
]
COMMANDS = [
    (*path, command.name or command.callback.__name__)
    for group, path in GROUPS
    for command in group.registered_commands
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_stands_in_the_readme(command):
    shown = CliRunner().invoke(cli.app, [*command, "--help"])
    assert shown.exit_code == 0
    assert f"minibutter {' '.join(command)}" in README.read_text()


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("kernel", RUNGS),
        ("activation", ACTIVATIONS),
        ("initializer", (*INITIALIZERS, GAUSSIAN)),
        ("parameterization", PARAMETERIZATIONS),
        ("optimizer", OPTIMIZERS),
        ("dtype", DTYPES),
    ],
)
def test_the_help_of_an_option_names_every_value_that_it_takes(option, known):
    (command,) = (c for c in cli.app.registered_commands if c.callback.__name__ == "train")
    annotation = inspect.signature(command.callback).parameters[option].annotation
    named = re.findall(r"\w+", annotation.__metadata__[0].help)
    assert [word for word in named if word != "or"] == list(known)


def test_the_sweep_in_the_readme_can_be_planned_as_it_stands(call, tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "noise.toml").write_text(block)
    document = json.loads(call("sweep", "plan", "noise.toml", "--json")[1])
    assert len(document["experiments"]) == 3 * 3 * 4 * 5 + 2
    assert [row["problem"] for row in document["experiments"] if row["problem"]] == []


def test_the_installed_command_and_the_module_print_the_version():
    script = Path(sys.executable).parent / "minibutter"
    if not script.exists():
        script = shutil.which("minibutter")
    for command in ([script], [sys.executable, "-m", "minibutter"]):
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, env=os.environ, timeout=60
        )
        assert done.stdout == f"{cli.minibutter.__version__}\n", done.stderr
