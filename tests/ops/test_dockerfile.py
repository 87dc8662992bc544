"""The Dockerfile is sound, and its result is complete and works; needs no container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from config.settings import HttpSettings
from hatch_build import has_compiler

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
HOME = "/opt/floodgate"


def _instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, arguments), with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


INSTRUCTIONS = _instructions()


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def step(part: str) -> str:
    """Return the only RUN that contains a text."""
    [command] = [run for run in arguments("RUN") if part in run]
    return command


def sources() -> list[str]:
    """Return the paths that are copied from the project."""
    copies = [shlex.split(rest) for rest in arguments("COPY") if not rest.startswith("--from")]
    return [source.rstrip("/") for *names, _ in copies for source in names]


def test_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_copied_sources_exist_and_are_complete() -> None:
    assert [source for source in sources() if not (ROOT / source).exists()] == []
    needed = {"pyproject.toml", "hatch_build.py", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert {*PACKAGES, *needed} <= set(sources())


def test_build_context_holds_copied_sources_only() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert sorted(line[1:] for line in patterns if line.startswith("!")) == sorted(sources())


def test_pip_installs_require_hashes_or_no_index() -> None:
    installs = [part for run in arguments("RUN") for part in run.split("&&") if re.search(r"\bpip\b.* install ", part)]
    assert len(installs) == 3
    for command in installs:
        words = set(shlex.split(command))
        assert {"--require-hashes", "--only-binary"} <= words or {"--no-index", "--no-deps"} <= words, command


def test_image_runs_as_numbered_user_without_healthcheck() -> None:
    builder, final = arguments("FROM")
    assert builder.removesuffix(" AS builder").replace(":3.11-", ":3.11-slim-") == final
    [user] = arguments("USER")
    uid, gid = (int(part) for part in user.split(":"))
    assert uid > 0
    assert f"useradd --uid {uid} --gid {gid} " in step("useradd")
    http = HttpSettings()
    assert arguments("EXPOSE") == [f"{http.port} {http.admin_port}"]
    assert json.loads(arguments("ENTRYPOINT")[0])[0] in PROJECT["project"]["scripts"]
    assert arguments("HEALTHCHECK") == []


@dataclass(frozen=True)
class Image:
    """Result of the steps: the wheel, and the environment that goes into the last stage."""

    build: Path
    home: Path

    @property
    def wheel(self) -> Path:
        [file] = (self.build / "dist").iterdir()
        return file

    def run(self, *command: str, **env: str) -> str:
        """Run a program of the environment from another directory, and return its output."""
        program = [str(self.home / "bin" / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=self.home, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["production", "orders"])
def image(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Image:
    """Run the steps in a directory. Dependencies are linked from this environment, nothing is downloaded."""
    built = Image(tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("image") / "floodgate")
    for source in sources():
        target = built.build / source
        target.parent.mkdir(exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    _perform(built, f"python -m venv --without-pip {HOME}")
    [packages] = built.home.glob("lib/python3*/site-packages")
    _link_packages(packages, request.param)
    _perform(built, step("pip wheel"))
    return built


def _link_packages(packages: Path, lock_name: str) -> None:
    """Link the packages of one lock and nothing else, so that a missing dependency is noticed."""
    lock = (ROOT / "requirements" / f"{lock_name}.lock").read_text(encoding="utf-8")
    parts: dict[str, str] = {}  # two may share a folder
    for name in re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE):
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system or an older Python
        for part in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            parts[part] = str(distribution.locate_file(part))
    for part, location in parts.items():
        (packages / part).symlink_to(location)


def _perform(image: Image, command: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = command.replace(HOME, str(image.home))
    done = subprocess.run(
        ["/bin/sh", "-ec", command], cwd=image.build, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_build_lock_has_all_that_builds_and_compiles(image: Image) -> None:
    _perform(image, step("build.lock").split("&&")[0])
    lock = (image.build / "requirements" / "build.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^([a-z0-9-]+)==[^\\]+\\\n((?:    .*\n)+)", lock, re.MULTILINE)
    assert all("--hash=sha256:" in block for _, block in blocks)
    needed, waiting = set(), ["hatchling", "mypy", "setuptools"]
    while waiting:
        name = waiting.pop().replace("_", "-")
        needed.add(name)
        requirements = [Requirement(text) for text in metadata.requires(name) or ()]
        waiting += [
            requirement.name
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    assert {name for name, _ in blocks} == needed


@pytest.mark.drill
@pytest.mark.parametrize("image", ["orders"], indirect=True)
def test_wheel_with_compiled_order_path_starts(image: Image, tmp_path: Path) -> None:
    """The argument's default makes mypy read the packages of the image."""
    if not has_compiler():
        pytest.skip("there is no C compiler")
    [argument] = [rest for rest in arguments("ARG") if rest.startswith("COMPILE_FOR=")]
    build = step("pip wheel").partition("&&")[0].replace("dist", str(tmp_path))
    _perform(image, f"export {argument} COMPILE_OPTIMISATION=0; {build}")
    [wheel] = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "tree")
    check = "from gateway.compiled import order_path_form; print(order_path_form())"
    assert image.run("python", "-c", check, PYTHONPATH=str(tmp_path / "tree"), PYTHONSAFEPATH="1").strip() == "compiled"


def test_wheel_holds_lua_sql_and_toml_files(image: Image) -> None:
    with zipfile.ZipFile(image.wheel) as wheel:
        inside = set(wheel.namelist())
    files = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".lua", ".sql", ".toml")
    }
    assert {Path(file).suffix for file in files} == {".py", ".lua", ".sql", ".toml"}
    assert files - inside == set()
    assert not [name for name in inside if name.startswith("tests") or "__pycache__" in name]


CHECK = """
import importlib, pathlib, sys
from importlib import resources

home = pathlib.Path(sys.prefix)
for name in sys.argv[1:]:
    file = importlib.import_module(name).__file__
    assert file and pathlib.Path(file).is_relative_to(home), (name, file)
import gateway.app
from ops.cli import app
from workers.registry import NAMES, load_worker
from commerce.kernel.migrations import load_migrations

assert load_migrations()
assert resources.files("config").joinpath("example.toml").is_file()
"""


def test_installed_packages_find_files_and_dependencies(image: Image) -> None:
    """Importing the stores and the scripts reads every .sql and every .lua."""
    image.run("python", "-I", "-c", CHECK, *PACKAGES)


def test_command_starts_with_environment_of_the_image(image: Image) -> None:
    [pairs] = [rest for rest in arguments("ENV") if "FLOODGATE_" in rest]
    env = dict(pair.split("=", 1) for pair in shlex.split(pairs))
    env |= {"PATH": os.environ["PATH"], "FLOODGATE_DATA_DIR": str(image.home)}
    assert "dead-letters" in image.run("floodgate", *json.loads(arguments("CMD")[0]), **env)
    settings = json.loads(image.run("floodgate", "settings", **env))
    assert (settings["http"]["host"], settings["http"]["admin_host"]) == ("0.0.0.0", "0.0.0.0")
