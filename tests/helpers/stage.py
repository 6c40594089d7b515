"""Stages called in this process, as DVC calls them in their own: imports are not repeated."""

import importlib
import io
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from minet.core import cli
from tests.helpers.tree import ROOT


def call_stage(
    name: str, *arguments: str, folder: Path = ROOT, **environment: str
) -> CompletedProcess[str]:
    """Call `python -m stages.<name>` in a folder; an error with a traceback is raised."""
    main = importlib.import_module(f"stages.{name}").main
    streams, code = (io.StringIO(), io.StringIO()), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        warnings.catch_warnings(),
    ):
        patch.setattr(sys, "argv", [f"stages.{name}", *arguments])
        patch.chdir(folder)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        try:
            cli.run(main)
        except SystemExit as end:
            code = int(end.code or 0)
    stdout, stderr = (stream.getvalue() for stream in streams)
    return CompletedProcess(["stages", name, *arguments], code, stdout, stderr)
