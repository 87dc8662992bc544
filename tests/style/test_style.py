"""Rules of the house that no linter has. A rule without a check does not exist."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import app, problems

ROOT = Path(__file__).parents[2]
PACKAGES = ("commerce", "config", "gateway", "loadtest", "lua", "ops", "workers")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
ALL = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "lua").glob("*.lua"), *ROOT.glob("commerce/*/*.sql")])
MAX_FILE, MAX_FUNCTION = 400, 70


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("file", ALL, ids=name)
def test_a_file_is_one_idea(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE, f"{len(lines)} lines: split it by what it does"
    if file.suffix == ".py":
        for function in functions(parse(file)):
            length = (function.end_lineno or 0) - function.lineno + 1
            assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_public_things_say_what_they_are(file: Path) -> None:
    tree = parse(file)
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if isinstance(node, ast.ClassDef) and any("ProblemError" in ast.unparse(base) for base in node.bases):
                continue  # its title says it
            short = (node.end_lineno or 0) - node.lineno < 8
            assert ast.get_docstring(node) or short, f"{node.name} has no docstring"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_nothing_is_left_open(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert not re.search(r"^\s*print\(", text, re.MULTILINE) or name(file).startswith(("ops/", "loadtest/"))


SQL_HOLDERS = (
    *("commerce/kernel/postgres.py", "commerce/kernel/migrations.py", "ops/local/embedded_servers.py", "loadtest/"),
    *(
        "ops/sandbox/payment_store.py",
        "ops/sandbox/shipment_store.py",
    ),  # the books of providers and of carriers, in SQLite
)
SQL_METHODS = {"fetch", "fetchrow", "fetchval", "executemany", "copy_records_to_table", "copy_to_table"}


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_only_stores_know_sql(file: Path) -> None:
    if file.name == "store.py" or name(file).startswith(SQL_HOLDERS):
        return
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in SQL_METHODS, f"line {node.lineno}: {node.attr} belongs into a store"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER) [\w*(]", node.value), node.value


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_only_lua_knows_keys_and_scripts(file: Path) -> None:
    peers = ROOT / "loadtest" / "bench" / "peers"  # stand for systems of others, which call the script their own way
    if file.is_relative_to(ROOT / "lua") or file.is_relative_to(peers):
        return
    text = file.read_text(encoding="utf-8")
    assert "{sale:" not in text
    assert not re.search(r"EVALSHA|\.eval\(|script_load|xadd|xreadgroup|hincrby", text, re.IGNORECASE)


PORTS = re.compile(
    r"\b(time\.time|time\.time_ns|datetime\.now|datetime\.utcnow|date\.today|uuid4|uuid1|random\.(?!random\b))\b"
)


@pytest.mark.parametrize(
    "file", [file for file in SOURCES if file.parts[len(ROOT.parts)] in ("commerce", "gateway", "workers")], ids=name
)
def test_time_and_chance_come_in_through_ports(file: Path) -> None:
    if name(file) in ("commerce/kernel/clock.py", "commerce/kernel/ids.py"):
        return
    assert not PORTS.search(file.read_text(encoding="utf-8"))


DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {*PACKAGES, "migrations", "tests"}


def distributions(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("package", sorted(OWN))
def test_what_is_imported_is_declared(package: str) -> None:
    """A library that is there only because another one brings it may be gone with the next lock file."""
    allowed = distributions(DECLARED["dependencies"])
    if package in ("loadtest", "tests"):
        allowed |= distributions(DECLARED["optional-dependencies"]["dev"])
    owners = packages_distributions()
    undeclared = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(parse(file)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.append(node.module)
            for top in {module.partition(".")[0] for module in modules} - OWN - sys.stdlib_module_names:
                if not {canonicalize_name(owner) for owner in owners.get(top, [])} & allowed:
                    undeclared.add(f"{name(file)}: {top}")
    assert sorted(undeclared) == []


def test_every_business_module_has_the_same_files() -> None:
    known = {"__init__.py", "model.py", "service.py", "store.py", "queries.sql", "errors.py"}
    for module in ("catalog", "sales", "orders", "dead_letters"):
        assert known <= {file.name for file in (ROOT / "commerce" / module).iterdir()}, module


def test_every_sql_block_is_used() -> None:
    for file in ROOT.glob("commerce/*/queries.sql"):
        blocks = re.findall(r"^-- name: (\w+)", file.read_text(), re.MULTILINE)
        users = "".join(other.read_text() for other in file.parent.glob("*.py"))
        unused = [block for block in blocks if not re.search(rf"queries\.{block}\b|\"{block}\"", users)]
        assert not unused, f"{name(file)}: {unused}"


def test_every_failpoint_is_crossed_by_a_test() -> None:
    points = {
        point
        for file in SOURCES
        for point in re.findall(r'failpoint\("([a-z_.]+)"\)', file.read_text(encoding="utf-8"))
    }
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    assert points
    assert [point for point in points if f'"{point}' not in tests] == []


def test_every_setting_is_used() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in SOURCES if file.name != "settings.py")
    settings = (ROOT / "config" / "settings.py").read_text(encoding="utf-8")
    fields = re.findall(r"^    (\w+): (?:Port|Positive|Seconds|int|float)\b", settings, re.MULTILINE)
    assert len(fields) > 30
    assert [field for field in fields if not re.search(rf"\.{field}\b", text)] == []


def test_every_outcome_of_the_api_has_a_page() -> None:
    """The documentation lists every problem code."""
    assert app.PUBLIC  # all refusals are defined once the whole gateway is imported
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Problems")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| \d+ \|", text, re.MULTILINE)) == set(problems.codes())
