"""Packaging of aws_ovs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "vnm_aws/__init__.py").read_text(encoding="utf-8"))[1]  # type: ignore[index]

FRONTEND = ["pyone>=6.8", "boto3>=1.28,<2", "click>=8.1,<9"]
TEST = ["pytest>=8,<9", "mypy>=1.10,<2", "ruff>=0.5,<1", "types-PyYAML", "lxml-stubs>=0.5", "moto[ec2,server]>=5.0.20,<6"]

setup(
    name="aws_ovs",
    version=VERSION,
    description="OpenNebula network driver for KVM clouds on AWS bare metal",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["vnm_aws", "vnm_aws.*"]),
    install_requires=["lxml>=4.9", "PyYAML>=6", "pyroute2>=0.7.3"],
    extras_require={"frontend": FRONTEND, "test": FRONTEND + TEST},
    entry_points={"console_scripts": ["oneaws=vnm_aws.cli:main"]},
)
