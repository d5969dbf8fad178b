"""What a build puts into the package: a number by which any two builds are told apart."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from vnm_aws import __version__

REPOSITORY = Path(__file__).parents[2]


def build(checkout: Path, to: Path) -> str:
    """Build the package; returns the version that it says it has."""
    argv = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(to)]
    subprocess.run(argv, cwd=checkout, check=True, capture_output=True)
    script = "import vnm_aws; print(vnm_aws.__version__)"
    return subprocess.run([sys.executable, "-c", script], cwd=to, check=True, capture_output=True, text=True).stdout


def test_two_builds_have_the_same_number_only_if_their_files_are_the_same(tmp_path: Path) -> None:
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    for name in ("setup.py", "README.md"):
        checkout.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, checkout)
    shutil.copytree(REPOSITORY / "vnm_aws", checkout / "vnm_aws", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(checkout, other)
    first = build(checkout, tmp_path / "built")
    assert re.fullmatch(rf"{re.escape(__version__)}\+[0-9a-f]{{8}}\n", first)
    assert build(other, tmp_path / "other-built") == first
    (other / "vnm_aws/vm.py").open("a").write("# changed\n")
    changed = build(other, tmp_path / "other-built")
    assert changed.startswith(__version__)
    assert changed != first
    (other / "vnm_aws/vm.py").rename(other / "vnm_aws/machine.py")
    assert build(other, tmp_path / "renamed") not in (first, changed)
