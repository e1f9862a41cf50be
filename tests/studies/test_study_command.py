"""`minibutter study` on the command line: what it refuses, and that it does so before it begins."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depth"], "there is no study 'depth'; there are noise-scale, width, instability"),
        (["noise-scale", "--quick", "--full"], "--quick and --full: choose one of them"),
        (["noise-scale", "--seed", "-1"], "'--seed'"),
        (["noise-scale", "--seed", str(2**63)], "'--seed'"),
        (["noise-scale", "--dataset", "no-such-set"], "there is no data set 'no-such-set'"),
        (["width", "--dry-run", "--dataset", "no-such-set"], "there is no data set 'no-such-set'"),
        (["noise-scale", "--dataset", "here/table.csv"], "here/table.csv is a table, and a study"),
        (["noise-scale", "--dataset", "iris"], "iris has 120 rows for training; this study needs"),
        (["noise-scale", "--dataset", "breast_cancer"], "is for two classes in one output"),
        (["noise-scale", "--dataset", "digits", "--out", "taken"], "cannot write taken"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_leaves_nothing(call, tmp_path, arguments, message):
    (tmp_path / "taken").write_text("a file")
    code, out, err = call("study", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err + out
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_dry_run_names_every_stage_and_writes_nothing(call, tmp_path):
    code, out, _ = call("study", "noise-scale", "--dry-run", "--full", "--dataset", "digits")
    assert code == 0
    for word in ("along", "adaptive", "of one core; nothing was run"):
        assert word in out
    assert not list(tmp_path.iterdir())
