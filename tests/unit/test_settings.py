"""Settings: where values come from, and that all faults are told at once."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from config.settings import SettingsError, default_data_dir, load, local_file, servers_file


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("REDIS_URL", "DATABASE_URL", "FLOODGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))
    return tmp_path


def test_defaults_are_safe() -> None:
    settings = load()
    assert settings.durability == "fsync"
    assert (settings.http.host, settings.http.admin_host) == ("127.0.0.1", "127.0.0.1")
    assert settings.auth.keys == ()


def test_which_source_wins(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    local_file(clean).write_text('redis_url = "redis://local"\n[limits]\nbody_bytes = 1\nconnections = 1\n')
    servers_file(clean).parent.mkdir()
    servers_file(clean).write_text('redis_url = "redis://servers"\n')
    assert load().redis() == "redis://servers"
    named = clean / "shop.toml"
    named.write_text('redis_url = "redis://named"\n[limits]\nbody_bytes = 2\n')
    monkeypatch.setenv("FLOODGATE_CONFIG", str(named))
    assert load().redis() == "redis://named"
    monkeypatch.setenv("REDIS_URL", "redis://env")
    monkeypatch.setenv("FLOODGATE_LIMITS__BODY_BYTES", "3")
    settings = load()
    assert (settings.redis(), settings.limits.body_bytes, settings.limits.connections) == ("redis://env", 3, 1)
    assert load(redis_url="redis://given").redis() == "redis://given"


def test_every_fault_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_HTTP__PORT", "http")
    monkeypatch.setenv("FLOODGATE_DURABILITY", "hope")
    monkeypatch.setenv("FLOODGATE_LIMITS__BODY_BYTES", "0")
    monkeypatch.setenv("FLOODGATE_LIMITS__NOPE", "1")
    with pytest.raises(SettingsError) as error:
        load()
    for part in ("http.port", "durability", "limits.body_bytes", "limits.nope"):
        assert part in str(error.value)


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_HTTPS__PORT", "1")
    with pytest.raises(SettingsError, match="no setting is called FLOODGATE_HTTPS__PORT"):
        load()


def test_a_file_that_is_none(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    monkeypatch.setenv("FLOODGATE_CONFIG", str(clean / "none.toml"))
    with pytest.raises(SettingsError, match="no such file"):
        load()
    (clean / "none.toml").write_text("this is = = not toml")
    with pytest.raises(SettingsError):
        load()


def test_weak_and_doubled_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="shorter than 32"):
        load(auth={"keys": [{"kid": "a", "secret": "short"}]})
    with pytest.raises(SettingsError, match="same kid"):
        load(auth={"keys": [{"kid": "a", "secret": "x" * 32}] * 2})


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        redis_url="redis://:hidden@x",
        database_url="postgresql://u:hidden@x",
        auth={"keys": [{"kid": "a", "secret": "hidden" * 8}]},
    )
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()
    monkeypatch.setenv("FLOODGATE_AUTH__KEYS", '[{"kid": "a", "secret": "hidden"}]')
    with pytest.raises(SettingsError) as error:
        load()
    assert "hidden" not in str(error.value)


def test_no_server_says_how_to_get_one() -> None:
    with pytest.raises(SettingsError, match=r"set REDIS_URL, or start everything .* with `floodgate up`"):
        load().redis()
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load().database()


def test_settings_do_not_change() -> None:
    settings = load()
    with pytest.raises(pydantic.ValidationError):
        settings.limits.body_bytes = 1  # type: ignore[misc]


def test_where_data_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/floodgate")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/floodgate")


def test_the_example_file_shows_the_defaults(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/example.toml lists what can be set, with the values that hold without it."""
    example = Path(__file__).parents[2] / "config" / "example.toml"
    before = load()
    monkeypatch.setenv("FLOODGATE_CONFIG", str(example))
    assert load() == before
    text = example.read_text()
    for part in ("http", "limits", "writer", "jobs", "observer", "log"):
        for name in type(getattr(before, part)).model_fields:
            assert f"\n{name} = " in text or f"\n# {name} = " in text, f"{part}.{name}"
