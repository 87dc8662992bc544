"""Files of the repository, as the style tests read them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("commerce", "config", "gateway", "loadtest", "lua", "ops", "workers")


def _files() -> Iterator[Path]:
    """Yield every file below a folder at the top level that is neither hidden nor generated."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") or top.name in ("dist", "node_modules"):
            continue
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and "node_modules" not in file.parts:
                yield file


FILES = tuple(_files())
"""every file of the repository"""
SOURCES = [file for file in FILES if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in PACKAGES]
"""Python files of the packages, without tests and migrations"""
TESTS = [file for file in FILES if file.suffix == ".py" and file.relative_to(ROOT).parts[0] == "tests"]
DOCUMENTS = [file for file in FILES if file.suffix == ".md"]


def name(file: Path) -> str:
    """Return the path of a file within the repository."""
    return file.relative_to(ROOT).as_posix()


def existing(*paths: str) -> tuple[str, ...]:
    """Return the paths, which may hold wildcards, unchanged.

    Raises `AssertionError` if one leads nowhere: a rule must not lose its files, nor an exemption outlive its file."""
    missing = [path for path in paths if not any(ROOT.glob(path))]
    assert not missing, f"these paths lead nowhere: {missing}"
    return paths


@cache
def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(read(file))


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a file: many rules look at each, and a walk takes longer than the parser."""
    return tuple(ast.walk(parse(file)))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods, nested ones too."""
    return (node for node in nodes(file) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def each_of(files: Iterable[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make one test of a check of one file. It checks all files and reports every one that fails.

    A test per file and rule would be some thousand tests, which take longer to start and report than to run.
    """

    def decorate(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            failures = []
            checked = 0
            for file in files:
                checked += 1
                try:
                    check(file)
                except AssertionError as error:
                    failures.append(f"{name(file)}: {error}")
            assert checked > 0
            assert not failures, "\n".join(failures)

        test.__name__, test.__qualname__ = check.__name__, check.__qualname__
        test.__doc__, test.__module__ = check.__doc__, check.__module__
        return test

    return decorate
