"""Project rules that no linter checks."""

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

from commerce.kernel.errors import ProblemError
from gateway import app, problems
from ops.cli import app as command_line
from tests.style.repository import (
    FILES,
    PACKAGES,
    ROOT,
    SOURCES,
    TESTS,
    each_of,
    existing,
    functions,
    name,
    nodes,
    parse,
    read,
)

MAX_FILE, MAX_FUNCTION = 400, 70
BOUNDED = [
    *SOURCES,
    *TESTS,
    *(file for file in FILES if name(file).startswith("lua/") and file.suffix == ".lua"),
    *(file for file in FILES if file.match("commerce/*/*.sql")),
]


@each_of(BOUNDED)
def test_file_and_its_functions_stay_within_length_limits(file: Path) -> None:
    lines = len(read(file).splitlines())
    assert lines <= MAX_FILE, f"{lines} lines: split it by what it does"
    for function in functions(file) if file.suffix == ".py" else ():
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"


def test_check_of_each_file_reports_every_file_that_fails() -> None:
    checked = []

    @each_of(SOURCES[:3])
    def check(file: Path) -> None:
        checked.append(file)
        assert file is SOURCES[1], "another"

    with pytest.raises(AssertionError) as failure:
        check()
    assert checked == SOURCES[:3]
    assert all(f"{name(file)}: another" in str(failure.value) for file in (SOURCES[0], SOURCES[2]))
    with pytest.raises(AssertionError):
        each_of([])(lambda file: None)()


def _is_problem(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("ProblemError" in ast.unparse(base) for base in node.bases)


@each_of(SOURCES)
def test_public_definition_longer_than_a_few_lines_has_docstring(file: Path) -> None:
    tree = parse(file)
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            is_short = (node.end_lineno or 0) - node.lineno < 8
            # A problem has a title instead.
            assert ast.get_docstring(node) or is_short or _is_problem(node), f"{node.name} has no docstring"


PRINTERS = existing("ops/", "loadtest/")


@each_of(SOURCES)
def test_source_holds_no_unfinished_work_and_no_stray_print(file: Path) -> None:
    text = read(file)
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert not re.search(r"^\s*print\(", text, re.MULTILINE) or name(file).startswith(PRINTERS)


[CONSOLE] = existing("ops/commands/safe_console.py")
UNSAFE_OUTPUT = {"typer.echo", "typer.secho", "typer.style", "typer.prompt", "print"}


@each_of(SOURCES)
def test_only_the_console_uses_markup_and_styles(file: Path) -> None:
    """Elsewhere a text of others could be read as markup, or reach a terminal with its escape sequences."""
    if name(file) == CONSOLE:
        return
    for node in nodes(file):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] != "rich", f"line {node.lineno}: print through the console"
        if isinstance(node, ast.Import):
            assert "rich" not in {alias.name.partition(".")[0] for alias in node.names}, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            assert not {"markup", "highlight", "emoji"} & {keyword.arg for keyword in node.keywords}, node.lineno
            is_safe = ast.unparse(node.func) not in UNSAFE_OUTPUT or name(file).startswith("loadtest/")
            assert is_safe, f"line {node.lineno}: print through the console"


def test_command_line_help_and_errors_are_not_read_as_markup() -> None:
    assert command_line.rich_markup_mode is None


SQL_HOLDERS = existing(
    "commerce/kernel/postgres.py",
    "commerce/kernel/migrations.py",
    "commerce/kernel/schema_page.py",
    "ops/local/embedded_servers.py",
    "ops/shop_backup.py",  # its table exists during a restore only
    "loadtest/",
    "commerce/sales/term_store.py",
    "commerce/catalog/product_store.py",
    "commerce/catalog/price_store.py",
    "commerce/payments/refund_store.py",
    "commerce/conversations/clock_store.py",
    "commerce/conversations/support_store.py",
    "commerce/categories/taxonomy_store.py",
    "commerce/product_search/index_store.py",
    "commerce/product_search/memory_store.py",
    # The sandbox keeps the records of providers and carriers in SQLite.
    "ops/sandbox/payment_store.py",
    "ops/sandbox/shipment_store.py",
)
SQL_METHODS = {"fetch", "fetchrow", "fetchval", "executemany", "copy_records_to_table", "copy_to_table"}


@each_of(SOURCES)
def test_source_outside_stores_holds_no_sql(file: Path) -> None:
    if file.name in ("store.py", "state_store.py", "term_store.py") or name(file).startswith(SQL_HOLDERS):
        return
    for node in nodes(file):
        if isinstance(node, ast.Attribute):
            assert node.attr not in SQL_METHODS, f"line {node.lineno}: {node.attr} belongs into a store"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER) [\w*(]", node.value), node.value


@each_of(SOURCES)
def test_handler_of_unique_violation_checks_the_constraint(file: Path) -> None:
    """A defect of the program is no fault of the data. A handler may also look at the rows."""
    for node in nodes(file):
        if isinstance(node, ast.ExceptHandler) and "UniqueViolationError" in ast.unparse(node.type or node):
            body = ast.unparse(node)
            assert "constraint_name" in body or "store.get_" in body or "failure" in body, f"line {node.lineno}"


# Peers are systems of others in the benchmark: they call the reserve script in their own way.
REDIS_HOLDERS = existing("lua/", "loadtest/bench/peers/")


@each_of(SOURCES)
def test_source_outside_lua_holds_no_redis_keys_and_script_commands(file: Path) -> None:
    if name(file).startswith(REDIS_HOLDERS):
        return
    assert "{sale:" not in read(file)
    assert not re.search(r"EVALSHA|\.eval\(|script_load|xadd|xreadgroup|hincrby", read(file), re.IGNORECASE)


CLOCKS_AND_CHANCE = re.compile(
    r"\b(time\.time|time\.time_ns|datetime\.now|datetime\.utcnow|date\.today|uuid4|uuid1|random\.(?!random\b))\b"
)
PORTS = existing("commerce/kernel/clock.py", "commerce/kernel/ids.py")
SERVICE_CODE = existing("commerce/", "gateway/", "workers/")


@each_of([file for file in SOURCES if name(file).startswith(SERVICE_CODE)])
def test_time_and_chance_come_in_through_ports(file: Path) -> None:
    assert name(file) in PORTS or not CLOCKS_AND_CHANCE.search(read(file))


DECLARED = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
OWN = {*PACKAGES, "migrations", "tests"}


def _distributions(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def _imports(file: Path) -> Iterator[str]:
    """Yield the top-level names of the modules that a file imports."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(OWN))
def test_library_imported_by_package_is_declared(package: str) -> None:
    """Fail for a library that another library brings: the next lock file may lack it."""
    extras = DECLARED["optional-dependencies"]
    allowed = _distributions(DECLARED["dependencies"])
    if package == "commerce":
        allowed |= _distributions([*extras["fulfilment"], *extras["fleet"], *extras["drand"], *extras["aftersales"]])
        allowed |= _distributions([*extras["knowledge"], *extras["taxonomy"], *extras["evaluation"], *extras["s3"]])
        allowed |= _distributions([*extras["search"], "mypy-extensions"])  # the latter where types are checked only
    if package == "ops":
        allowed |= _distributions(extras["aftersales"])
    if package in ("loadtest", "tests"):
        allowed |= _distributions([line for lines in extras.values() for line in lines])
    distributions = packages_distributions()
    undeclared = set()
    for file in (ROOT / package).rglob("*.py"):
        for top in {*_imports(file)} - OWN - {"hatch_build"} - sys.stdlib_module_names:
            if not {canonicalize_name(distribution) for distribution in distributions.get(top, [])} & allowed:
                undeclared.add(f"{name(file)}: {top}")
    assert sorted(undeclared) == []


BUSINESS_PACKAGES = sorted(folder.parent for folder in (ROOT / "commerce").glob("*/service.py"))
# Reservations work with the rows of their store.
WITHOUT_MODEL = existing("commerce/reservations")
# The search of texts works in memory, and rights come from tokens.
WITHOUT_ROWS = existing("commerce/rights", "commerce/text_search")


def test_every_package_of_commerce_but_the_kernel_has_a_service() -> None:
    packages = {file.parent for file in (ROOT / "commerce").glob("*/__init__.py")}
    assert packages - {*BUSINESS_PACKAGES} == {ROOT / "commerce" / "kernel"}


@pytest.mark.parametrize("package", BUSINESS_PACKAGES, ids=name)
def test_business_package_has_the_common_files(package: Path) -> None:
    files = {file.name for file in package.iterdir()}
    assert {"__init__.py", "service.py"} <= files
    assert ({"store.py", "queries.sql"} <= files) is (name(package) not in WITHOUT_ROWS)
    assert ("model.py" in files) is (name(package) not in WITHOUT_MODEL)


def _problems(base: type[ProblemError]) -> Iterator[type[ProblemError]]:
    for problem in base.__subclasses__():
        yield problem
        yield from _problems(problem)


def test_problem_is_defined_in_an_errors_module_or_by_the_gateway() -> None:
    assert app.PUBLIC  # importing the whole gateway defines all problems
    modules = {problem.__module__ for problem in _problems(ProblemError)}
    own = {module for module in modules if module.partition(".")[0] in PACKAGES}
    assert problems.__name__ in own
    assert {module for module in own if not module.endswith(".errors")} == {problems.__name__}


def test_sql_block_of_package_is_used_there() -> None:
    unused = []
    for file in ROOT.glob("commerce/*/*.sql"):
        users = "".join(read(other) for other in file.parent.glob("*.py"))
        for block in re.findall(r"^-- name: (\w+)", read(file), re.MULTILINE):
            if not re.search(rf"queries\.{block}\b|\"{block}\"", users):
                unused.append(f"{name(file)}: {block}")
    assert unused == []


def test_sql_names_the_columns_it_reads() -> None:
    every_column = re.compile(r"\b(SELECT|RETURNING) \*(?! FROM unnest\()|\w\.\*")
    files = [*ROOT.glob("commerce/*/*.sql"), *ROOT.glob("commerce/**/*.py")]
    assert [f"{name(file)}: {match[0]}" for file in files for match in every_column.finditer(read(file))] == []


def test_failpoint_in_source_is_crossed_by_a_test() -> None:
    points = {point for file in SOURCES for point in re.findall(r'\bfailpoint\("([a-z_.]+)"\)', read(file))}
    tests = "".join(map(read, TESTS))
    assert len(points) > 10
    assert [point for point in sorted(points) if f'"{point}' not in tests] == []


def test_setting_in_config_is_used_outside_of_it() -> None:
    fields = {
        node.target.id
        for file in SOURCES
        if file.match("config/*.py")
        for section in parse(file).body
        if isinstance(section, ast.ClassDef)
        for node in section.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    users = "".join(read(file) for file in SOURCES if not file.match("config/*.py"))
    assert len(fields) > 100
    assert [field for field in sorted(fields) if not re.search(rf"\.{field}\b", users)] == []


def test_problem_codes_are_all_in_the_api_document() -> None:
    assert app.PUBLIC  # importing the whole gateway defines all problems
    text = read(ROOT / "docs" / "api.md").partition("## Problems")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| \d+ \|", text, re.MULTILINE)) == set(problems.problem_codes())
