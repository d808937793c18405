"""Files of a version: lost otherwise, a file that is read from elsewhere counts as one of the version."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.registry import contents


def test_check_refuses_a_link_to_equal_bytes(tmp_path: Path) -> None:
    """Its target can change after the check."""
    folder, model = tmp_path / "version", tmp_path / "version/artifacts/base"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"1")
    (folder / contents.CARD).write_text("card", encoding="utf-8")
    (folder / contents.ENTRY).write_text('SEAL = ""\n', encoding="utf-8")
    sealed = contents.seal(folder, "base")
    assert contents.check(folder, "tohum-base", "3") == sealed
    (folder / contents.CARD).rename(tmp_path / "elsewhere.md")
    (folder / contents.CARD).symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(UserError, match=r"tohum-base version 3: model_card\.md is a link, expected a file"):
        contents.check(folder, "tohum-base", "3")
