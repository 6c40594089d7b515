"""Stages and commands called in this process: Python and torch are started once for all of them."""

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
    """Call a stage with what `python -m stages.<name>` would get; unexpected errors are raised."""
    return call_main(f"stages.{name}", *arguments, folder=folder, **environment)


def call_main(
    module: str, *arguments: str, folder: Path = ROOT, **environment: str
) -> CompletedProcess[str]:
    """Call the `main` of a module in a folder as `python -m` would; return its code and output."""
    main = importlib.import_module(module).main
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        warnings.catch_warnings(),
    ):
        patch.setattr(sys, "argv", [module, *arguments])
        patch.chdir(folder)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        try:
            cli.run(main)
        except SystemExit as end:
            code = int(end.code or 0)
    return CompletedProcess([module, *arguments], code, stdout.getvalue(), stderr.getvalue())
