"""Settings: sources and their precedence, and errors that are reported together."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from config.settings import SettingsError, default_data_dir, load, local_file, servers_file


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("REDIS_URL", "DATABASE_URL", "FLOODGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))
    return tmp_path


def test_defaults_are_safe() -> None:
    settings = load()
    assert settings.durability == "fsync"
    assert (settings.http.host, settings.http.admin_host) == ("127.0.0.1", "127.0.0.1")
    assert settings.auth.keys == ()


def test_settings_sources_have_precedence(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    local_file(data_dir).write_text('redis_url = "redis://local"\n[limits]\nbody_bytes = 1\nconnections = 1\n')
    servers_file(data_dir).parent.mkdir()
    servers_file(data_dir).write_text('redis_url = "redis://servers"\n')
    assert load().redis() == "redis://servers"
    named = data_dir / "shop.toml"
    named.write_text('redis_url = "redis://named"\n[limits]\nbody_bytes = 2\n')
    monkeypatch.setenv("FLOODGATE_CONFIG", str(named))
    assert load().redis() == "redis://named"
    monkeypatch.setenv("REDIS_URL", "redis://env")
    monkeypatch.setenv("FLOODGATE_LIMITS__BODY_BYTES", "3")
    settings = load()
    assert (settings.redis(), settings.limits.body_bytes, settings.limits.connections) == ("redis://env", 3, 1)
    assert load(redis_url="redis://argument").redis() == "redis://argument"


def test_wrong_settings_are_all_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_HTTP__PORT", "http")
    monkeypatch.setenv("FLOODGATE_DURABILITY", "hope")
    monkeypatch.setenv("FLOODGATE_LIMITS__BODY_BYTES", "0")
    monkeypatch.setenv("FLOODGATE_LIMITS__NOPE", "1")
    with pytest.raises(SettingsError) as error:
        load()
    for part in ("http.port", "durability", "limits.body_bytes", "limits.nope"):
        assert part in str(error.value)


def test_unknown_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_HTTPS__PORT", "1")
    with pytest.raises(SettingsError, match="no setting is called FLOODGATE_HTTPS__PORT"):
        load()


def test_missing_or_malformed_file_is_refused(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("FLOODGATE_CONFIG", str(data_dir / "none.toml"))
    with pytest.raises(SettingsError, match="there is no file"):
        load()
    (data_dir / "none.toml").write_text("this is = = not toml")
    with pytest.raises(SettingsError):
        load()


def test_short_or_duplicate_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="shorter than 32"):
        load(auth={"keys": [{"kid": "a", "secret": "short"}]})
    with pytest.raises(SettingsError, match="same kid"):
        load(auth={"keys": [{"kid": "a", "secret": "x" * 32}] * 2})


def test_secrets_are_absent_from_texts(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_missing_servers_error_names_remedy() -> None:
    with pytest.raises(SettingsError, match=r"set REDIS_URL, or start everything .* with `floodgate up`"):
        load().redis()
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load().database()


def test_settings_are_immutable() -> None:
    settings = load()
    with pytest.raises(pydantic.ValidationError):
        settings.limits.body_bytes = 1  # type: ignore[misc]


def test_data_directory_depends_on_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/floodgate")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/floodgate")


def test_example_file_has_default_values(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/example.toml lists every setting with its default."""
    example = Path(__file__).parents[2] / "config" / "example.toml"
    before = load()
    monkeypatch.setenv("FLOODGATE_CONFIG", str(example))
    assert load() == before
    text = example.read_text()
    for part in ("http", "limits", "writer", "jobs", "observer", "log"):
        for name in type(getattr(before, part)).model_fields:
            assert f"\n{name} = " in text or f"\n# {name} = " in text, f"{part}.{name}"
