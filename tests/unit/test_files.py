"""Writing files so that nobody else decides what is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnm_aws import files, lock
from vnm_aws.errors import AwsOvsError


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_that_waits_under_the_temporary_name_is_not_followed(tmp_path: Path, target: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("root's")
    path = tmp_path / "state.json"
    (tmp_path / f"state.json.{os.getpid()}.tmp").symlink_to(tmp_path / target)
    files.replace(str(path), "ours")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("root's", "ours", False)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["state.json", "victim"]


def test_a_lock_is_no_link_and_nobody_else_can_take_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o644)  # of an earlier version
    with lock.held("a test", 1, str(path)):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text().startswith("a test (pid ")
    path.unlink()
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(AwsOvsError, match="cannot be opened"), lock.held("a test", 1, str(path)):
        pass
    assert not (tmp_path / "victim").exists()
