"""Run a program of the front-end in this process, as a process of its own would run: a tenth of the time."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

import boto3
import botocore.session
from botocore.loaders import Loader

_LOADER = Loader()
"""Keeps what it has read of botocore's description of EC2: that takes four fifths of a run's time."""


def run(
    program: Callable[[list[str]], object], argv: Sequence[str], environment: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Call a program's main function with an environment, input and outputs of its own.

    Output, environment and boto3's session belong to the whole process: call it in the main thread only.

    Args:
        program: gets the arguments; it returns the exit code or raises SystemExit with it.
        argv: the arguments.
        environment: all of its environment.
        stdin: what it reads.
    """
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with ExitStack() as changes:
        changes.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        changes.enter_context(mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))))
        changes.enter_context(mock.patch.object(boto3, "DEFAULT_SESSION", _session()))
        changes.enter_context(redirect_stdout(out))
        changes.enter_context(redirect_stderr(error))
        try:
            code = program(list(argv))
        except SystemExit as end:
            code = end.code
    for stream in (out, error):
        stream.seek(0)
    return subprocess.CompletedProcess(list(argv), _exit_code(code), out.read(), error.read())


def _session() -> Any:
    """A session of boto3 that has found no credentials yet; one that has keeps them."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _LOADER)
    return boto3.Session(botocore_session=session)


def _exit_code(code: object) -> int:
    """The exit code that Python makes of what a program returns or SystemExit holds."""
    if code is None:
        return 0
    assert isinstance(code, int), f"a program ends with {code!r}"
    return code
