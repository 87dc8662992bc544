"""Files of state: never cut by a full disk, and named with a remedy if they are broken."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commerce.kernel.durable_files import create_file, replace_file
from config.settings import SettingsError, load
from ops.local import embedded_servers, up
from ops.local.subprocesses import ProcessFailed
from ops.redis_versions import RedisVersion
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults
from ops.sandbox.keys import make_keys, read_keys
from ops.sandbox.server import SandboxOptions, serve


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """Let every file of this process end after a number of bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_version(home: Path) -> None:
    (home / "redis").mkdir(exist_ok=True)
    embedded_servers._note_redis_version(home / "redis", RedisVersion(7, 0))


def write_servers(home: Path) -> None:
    (home / "run").mkdir(exist_ok=True)
    up._write_servers_file(home, "unix:///r", "postgresql://p", "")


def write_local(home: Path) -> None:
    up._load_with_signing_key(home)


def write_faults(home: Path) -> None:
    ProviderFaultRegistry(0, home / "faults.json").set("alipay", ProviderFaults(approve="auto"))


def write_new(home: Path) -> None:
    create_file(home / "new", b"new content")


WRITERS: dict[str, Callable[[Path], None]] = {
    "redis/VERSION": write_version,
    "run/servers.toml": write_servers,
    "local.toml": write_local,
    "faults.json": write_faults,
    "new": write_new,
    "keys/sandbox.json": lambda home: make_keys(home / "keys"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_file_on_full_disk_keeps_its_old_content(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))
    file = tmp_path / name
    with full_disk(2), pytest.raises(OSError, match="too large") as raised:
        WRITERS[name](tmp_path)
    assert raised.value.filename == str(file)
    assert list(file.parent.iterdir()) == []

    WRITERS[name](tmp_path)
    before = file.read_bytes()
    assert len(before) > 2
    with full_disk(2), pytest.raises(OSError, match="too large"):
        replace_file(file, b"something else")
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir() if entry.name.startswith(".")] == []


def test_create_file_keeps_the_file_of_another_process(tmp_path: Path) -> None:
    create_file(tmp_path / "key", b"first", 0o600)
    create_file(tmp_path / "key", b"second", 0o600)
    assert (tmp_path / "key").read_bytes() == b"first"
    assert oct((tmp_path / "key").stat().st_mode)[-3:] == "600"
    assert len(list(tmp_path.iterdir())) == 1


def start_redis(home: Path) -> None:
    embedded_servers.prepare_redis_server(home)


def start_postgres(home: Path) -> None:
    embedded_servers._find_postgres(home / "postgres" / "data")


def read_settings(home: Path) -> None:
    up._load_with_signing_key(home)


def set_up_sandbox(home: Path) -> None:
    make_keys(home / "sandbox" / "keys")
    read_keys(home / "sandbox" / "keys")


def start_sandbox(home: Path) -> None:
    asyncio.run(serve(SandboxOptions(data=home / "sandbox", keys=home / "sandbox" / "keys", port=0)))


BROKEN = [
    ("redis/VERSION", "", start_redis, "write a version into it"),
    ("redis/VERSION", "\0\0\0", start_redis, "write a version into it"),
    ("postgres/data/PG_VERSION", "", start_postgres, "write a version into it"),
    ("postgres/data/PG_VERSION", "x", start_postgres, "write a version into it"),
    ("run/servers.toml", 'redis_url = "unix:/', read_settings, "delete it"),
    ("run/servers.toml", "\0\0\0", read_settings, "delete it"),
    ("local.toml", '[[auth.keys]]\nkid = "lo', read_settings, "delete it"),
    ("local.toml", "", read_settings, "delete it"),
    ("config.toml", "[limits", read_settings, "correct it"),
    ("sandbox/keys/sandbox.json", "{", set_up_sandbox, "delete"),
    ("sandbox/keys/alipay-merchant.pem", "", set_up_sandbox, "delete it"),
    ("sandbox/keys/wechatpay-platform.pem", "-----BEGIN PRIVATE", set_up_sandbox, "delete it"),
    ("sandbox/keys/wechatpay-platform-certificate.pem", "\0", set_up_sandbox, "delete it"),
    ("sandbox/provider-faults.json", '{"ali', start_sandbox, "delete"),
    ("sandbox/carrier-faults.json", "", start_sandbox, "delete"),
]


@pytest.fixture(scope="module")
def sandbox_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_keys(directory)
    return directory


@pytest.mark.parametrize(("name", "text", "read", "remedy"), BROKEN)
def test_broken_file_is_named_with_a_remedy(
    name: str,
    text: str,
    read: Callable[[Path], None],
    remedy: str,
    tmp_path: Path,
    sandbox_keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))
    if name == "config.toml":
        monkeypatch.setenv("FLOODGATE_CONFIG", str(tmp_path / name))
    if name.startswith("sandbox"):
        (tmp_path / "sandbox" / "keys").mkdir(parents=True)
        for key in sandbox_keys.iterdir():
            (tmp_path / "sandbox" / "keys" / key.name).hardlink_to(key)
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(text)
    with pytest.raises((ProcessFailed, SettingsError, ValueError)) as raised:
        read(tmp_path)
    assert str(file) in str(raised.value)
    assert remedy in str(raised.value)


def test_data_dir_of_the_settings_file_has_the_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOODGATE_DATA_DIR", raising=False)
    home = tmp_path / "home"
    write_servers_in = home / "run"
    write_servers_in.mkdir(parents=True)
    up._write_servers_file(home, "unix:///a", "postgresql://b", "")
    (tmp_path / "config.toml").write_text(f'data_dir = "{home}"\n')
    monkeypatch.setenv("FLOODGATE_CONFIG", str(tmp_path / "config.toml"))
    settings = load()
    assert settings.redis() == "unix:///a"
    assert settings.data_dir == home
