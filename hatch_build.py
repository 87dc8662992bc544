"""Compiles the modules of the order path with mypyc: into the wheel, or into a directory of its own.

The list is `tool.floodgate.compiled` in `pyproject.toml`. A wheel is compiled if COMPILE_FOR names the interpreter that
it is for, whose packages tell mypy the types; otherwise it is pure Python. `python hatch_build.py DIRECTORY` makes a
tree that goes first on PYTHONPATH. Every compiled module lies beside its source, which it is compiled from unchanged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = _PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
COMPILED: list[str] = _PROJECT["tool"]["floodgate"]["compiled"]
_STAMP = "sources.sha256"
_OPTIMISATION = os.environ.get("COMPILE_OPTIMISATION", "2")
"""level of the C compiler; 0 is fast to build and slow to run"""


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the compiled modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        python = os.environ.get("COMPILE_FOR")
        if version == "editable" or not python:
            return
        target = Path(tempfile.mkdtemp(prefix="floodgate-"))
        compile_modules(target, python)
        files = [file for file in target.rglob("*") if file.is_file()]
        build_data["force_include"] |= {str(file): str(file.relative_to(target)) for file in files}
        build_data["pure_python"], build_data["infer_tag"] = False, True


def compile_modules(target: Path, python: str = sys.executable) -> None:
    """Compile the listed modules into `target`, with the folders of their packages.

    `python` has the packages that the project needs. Raises `SystemExit` or setuptools's errors if it fails.
    """
    from mypyc.build import mypycify  # noqa: PLC0415  # absent where nothing is compiled
    from setuptools import Distribution  # noqa: PLC0415

    os.chdir(ROOT)
    files = [name.replace(".", "/") + ".py" for name in COMPILED]
    with tempfile.TemporaryDirectory(prefix="floodgate-") as work:
        # Not the project's own options: strict checks are for `make check`, and need stubs that an image does not have.
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
        modules = mypycify(
            [*options, f"--python-executable={python}", *files],
            opt_level=_OPTIMISATION,
            target_dir=work,
            group_name="floodgate",
        )
        command = Distribution({"name": "floodgate", "ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(target), work
        command.ensure_finalized()
        command.run()


def build_tree(directory: Path) -> bool:
    """Build a tree with all packages and the compiled modules, unless `directory` has one of the same sources.

    Returns False, and leaves no directory, if there is no C compiler.
    """
    stamp, digest = directory / _STAMP, _digest_sources()
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return True
    shutil.rmtree(directory, ignore_errors=True)
    if not has_compiler():
        return False
    directory.mkdir(parents=True)
    compiled_packages = {name.partition(".")[0] for name in COMPILED}
    for package in PACKAGES:
        if package in compiled_packages:
            shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (directory / package).symlink_to(ROOT / package)
    compile_modules(directory)
    stamp.write_text(digest, encoding="ascii")
    return True


def has_compiler() -> bool:
    """Tell whether the C compiler runs that Python's own build configuration or CC names."""

    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(compiler.split()[0]) is not None and header.exists()


def _digest_sources() -> str:
    """Return the digest of everything that a tree is made from, and of the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    files = [ROOT / "pyproject.toml", Path(__file__)]
    files += [file for package in PACKAGES for file in (ROOT / package).rglob("*.*") if _is_source(file)]
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _is_source(file: Path) -> bool:
    return file.suffix in (".py", ".lua", ".sql", ".toml")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: hatch_build.py DIRECTORY")
    if not build_tree(Path(sys.argv[1]).resolve()):
        print(
            "nothing is compiled: there is no C compiler with Python's headers; the sources are used", file=sys.stderr
        )
