"""Measured runs over ranks; every test here starts mpirun."""

import pandas as pd
import pytest

pytestmark = pytest.mark.mpi


@pytest.fixture
def measured_sweep(tmp_path):
    path = tmp_path / "measured.toml"
    path.write_text(
        'dataset = "digits"\n'
        "size = 1800\n"
        "depth = 3\n"
        "learning_rate = 1e-2\n"
        "epochs = 3\n"
        "batch_size = 70\n"
        'measure = ["noise_scale"]\n'
        "[[grid]]\n"
        "slices = [1, 4]\n"
        "[[grid]]\n"
        'batch_rule = "noise_scale"\n'
        "batch_exchange_rate = 500\n"
        "batch_size_max = 400\n"
        "repetitions = 2\n"
    )
    return path


def test_one_rank_and_two_measure_the_same_bits(launcher, measured_sweep):
    tables = {}
    for n_ranks in (None, 2):
        out = launcher.folder / f"ranks-{n_ranks}"
        done = launcher.run(n_ranks, launcher.mpi_run, measured_sweep, "--out", out)
        assert done.returncode == 0, done.stderr
        tables[n_ranks] = launcher.epochs_as_bits(out)
        runs = pd.read_parquet(out / "runs")
        assert sorted(runs["ranks_together"]) == [1, 1, 1, n_ranks or 1]
    assert len(tables[None]) == 4 * 3
    epochs = pd.read_parquet(launcher.folder / "ranks-2" / "epochs")
    assert epochs["noise_trace"].notna().all()
    assert epochs["batch_size_used"].nunique() > 2
    pd.testing.assert_frame_equal(tables[2], tables[None], check_exact=True)
