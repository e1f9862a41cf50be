"""Tables between markers of a document."""

import pytest

from bench.markers import END, begin, read_table, write_table


def test_a_document_changes_between_its_markers_only(tmp_path):
    path = tmp_path / "README.md"
    other = f"{begin('other')}\ntheirs\n{END}\n"
    path.write_text(f"before\n{other}{begin('ours')}\nold\n{END}\nafter\n")
    write_table("ours", "new", path)
    assert path.read_text() == f"before\n{other}{begin('ours')}\nnew\n{END}\nafter\n"
    assert read_table("ours", path) == "new"
    assert read_table("other", path) == "theirs"


def test_a_document_without_markers_is_refused(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before, after")
    with pytest.raises(ValueError, match="has no <!-- table"):
        write_table("ours", "new", path)
    assert path.read_text() == "before, after"
