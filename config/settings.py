"""Every setting and every limit of Floodgate, with its unit in its name.

A value comes from the first of these that has it:

1. the environment (`FLOODGATE_LIMITS__BODY_BYTES=65536`; `REDIS_URL` and `DATABASE_URL` go without a prefix),
2. the TOML file named by `FLOODGATE_CONFIG`,
3. `DATA_DIR/run/servers.toml`, which `floodgate up` writes while its servers run,
4. `DATA_DIR/local.toml`, which `floodgate up` writes once and which holds this machine's signing key,
5. the default below.

`load()` reports every fault of every source at once.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from config.base import CredentialSection, Port, Positive, Seconds, SettingsSection
from config.shipping import ShippingSettings

Durability = Literal["fsync", "replicated", "memory"]


class SettingsError(Exception):
    """The settings cannot be used. The message names every fault and where to mend it."""


class HttpSettings(SettingsSection):
    """Where the front door listens. The admin port also serves `/metrics`: keep it inside."""

    host: str = "127.0.0.1"
    port: Port = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Port = 8081
    processes: int = Field(default=0, ge=0, description="gateway processes under `floodgate up`; 0: one per core")


class LimitSettings(SettingsSection):
    """What a request, an order, a batch and a queue may be at most."""

    # One request.
    body_bytes: Positive = 262_144
    header_line_bytes: Positive = 8_190
    headers_per_request: Positive = 64
    request_head_timeout_s: Seconds = 15
    request_body_timeout_s: Seconds = 10
    connections: Positive = 10_000
    admin_connections: Positive = 200
    concurrent_event_streams: Positive = 2_000
    event_stream_max_s: Seconds = 900
    # One order.
    lines_per_order: Positive = 1_000
    addresses_per_order: Positive = 50
    payments_per_order: Positive = 8
    quantity_per_line: Positive = 100_000
    # One user, at one gateway process.
    orders_per_user_per_s: Seconds = 5
    orders_per_user_burst: Positive = 20
    # The way through Redis.
    batch_orders: Annotated[int, Field(ge=1, le=2_000)] = 256  # a batch is one command, whose length has a bound
    batch_bytes: Positive = 1_048_576
    concurrent_reserve_calls: Positive = 1
    waiting_orders: Positive = 4_000
    backlog_orders: Positive = 1_000_000
    order_timeout_ms: Positive = 5_000
    redis_call_timeout_ms: Positive = 2_000
    redis_connections: Positive = 16
    # Postgres.
    database_connections: Positive = 4
    database_timeout_s: Seconds = 10
    # Lists.
    page_items: Positive = 100
    # Stopping.
    graceful_stop_s: Seconds = 20


class WriterSettings(SettingsSection):
    """The order writer: how much it takes at once, and when it takes over from one that died."""

    entries_per_read: Positive = 64
    orders_per_batch: Positive = 2_000
    concurrent_batches: Positive = 3
    concurrent_reads: Positive = 200
    read_block_ms: Positive = 1_000
    claim_idle_ms: Positive = 5_000
    backoff_max_s: Seconds = 5


class JobsSettings(SettingsSection):
    """Drivers work off rows that are due."""

    rows_per_claim: Positive = 500
    poll_ms: Positive = 200
    lease_s: Positive = 60  # longer than all calls of one job together
    backoff_initial_ms: Positive = 200
    backoff_max_s: Seconds = 60
    # Those that call out.
    max_attempts: Positive = 12
    concurrent_jobs: Positive = 100
    concurrent_jobs_per_system: Positive = 50
    call_timeout_s: Seconds = 8
    refunds_per_s: Seconds = 100
    breaker_failures: Positive = 20
    breaker_open_s: Seconds = 5


class AlipaySettings(CredentialSection):
    """Keys are PEM, or base64 as Alipay's console shows them: the shop's private one, and Alipay's public one."""

    app_id: str
    seller_id: str
    gateway_url: str = "https://openapi.alipay.com/gateway.do"
    notify_url: str
    merchant_key: SecretStr
    alipay_key: str


class WeChatPaySettings(CredentialSection):
    """Keys are PEM. `serial` is that of the merchant's certificate; the public key is for merchants who have one in
    place of platform certificates."""

    app_id: str
    mch_id: str
    serial: str
    private_key: SecretStr
    api_v3_key: SecretStr
    base_url: str = "https://api.mch.weixin.qq.com"
    notify_url: str
    public_key: str = ""
    public_key_id: str = ""


class PaymentSettings(SettingsSection):
    """The providers that are offered; a provider's last moment is `expiry_margin_s` before the order expires."""

    expiry_margin_s: Seconds = 60
    alipay: AlipaySettings | None = None
    wechatpay: WeChatPaySettings | None = None


class SandboxSettings(SettingsSection):
    """Made-up providers and carriers under `floodgate up`, for who has agreed with none. `speed` is how much faster
    than the world's the clock goes that parcels move on."""

    port: Port = 8090
    time_factor: Positive = 3_600
    fault_scenario: Path | None = None


class ObserverSettings(SettingsSection):
    """How often the gauges and the audit are renewed, and whether each process shows its own metrics."""

    gauges_every_s: Seconds = 2
    audit_every_s: Seconds = 60
    worker_metrics_port: Port = Field(default=0, description="0: workers show theirs through the gateway (one machine)")


class AuthKey(SettingsSection):
    """A key that tokens are checked with; `secret` is the shared secret or the PEM public key.

    `sign_with` is the PEM private key, only for commands that make tokens; HS256 signs with its secret.
    """

    kid: str = Field(min_length=1, max_length=64)
    algorithm: Literal["HS256", "EdDSA", "ES256", "RS256"] = "HS256"
    secret: SecretStr
    sign_with: SecretStr | None = None


def _strong(keys: tuple[AuthKey, ...]) -> tuple[AuthKey, ...]:
    for key in keys:
        if key.algorithm == "HS256" and len(key.secret.get_secret_value()) < 32:
            raise ValueError(f"the secret of key {key.kid!r} is shorter than 32 characters")
    if len({key.kid for key in keys}) != len(keys):
        raise ValueError("two keys have the same kid")
    return keys


class AuthSettings(SettingsSection):
    """Tokens are JWTs. Several keys may be valid at once, so that a key can be replaced without a stop."""

    keys: Annotated[tuple[AuthKey, ...], AfterValidator(_strong)] = ()
    issuer: str = "floodgate"
    token_cache: Positive = 50_000
    clock_leeway_s: int = Field(default=5, ge=0)


class LogSettings(SettingsSection):
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: Path | None = Field(default=None, description="a file that is rotated; none: standard error")
    file_bytes: Positive = 20_000_000


def default_data_dir() -> Path:
    """Where the embedded servers keep their data when nothing else is said."""
    if os.geteuid() == 0:
        return Path("/var/lib/floodgate")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "floodgate"


class Settings(BaseSettings):
    """The whole of it. Build it with `load()`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FLOODGATE_", env_nested_delimiter="__", hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    redis_url: SecretStr | None = Field(default=None, validation_alias="redis_url")
    database_url: SecretStr | None = Field(default=None, validation_alias="database_url")
    durability: Durability = Field(
        default="fsync",
        description="what a 202 means; 'replicated' promises the memory of `replicas` replicas and asks for no disk",
    )
    replicas: int = Field(default=1, ge=1, description="replicas that must confirm, with durability 'replicated'")
    metrics_dir: Path | None = Field(default=None, description="shared by the processes of one machine")
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    writer: WriterSettings = WriterSettings()
    jobs: JobsSettings = JobsSettings()
    observer: ObserverSettings = ObserverSettings()
    payments: PaymentSettings = PaymentSettings()
    shipping: ShippingSettings = ShippingSettings()
    sandbox: SandboxSettings = SandboxSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        data_dir = Path(os.environ.get("FLOODGATE_DATA_DIR") or default_data_dir())
        files = [servers_file(data_dir), local_file(data_dir)]
        if named := os.environ.get("FLOODGATE_CONFIG"):
            if not Path(named).is_file():
                raise SettingsError(f"FLOODGATE_CONFIG names {named}, and there is no such file")
            files.insert(0, Path(named))
        return (
            init_settings,
            env_settings,
            *(TomlConfigSettingsSource(settings_cls, file) for file in files if _readable(file)),
        )

    def redis(self) -> str:
        """The Redis URL, or a `SettingsError` that says how to get one."""
        if self.redis_url is None:
            raise SettingsError(_NO_SERVER.format(what="Redis", variable="REDIS_URL", data_dir=self.data_dir))
        return self.redis_url.get_secret_value()

    def database(self) -> str:
        """The Postgres URL, or a `SettingsError` that says how to get one."""
        if self.database_url is None:
            raise SettingsError(_NO_SERVER.format(what="Postgres", variable="DATABASE_URL", data_dir=self.data_dir))
        return self.database_url.get_secret_value()

    def driver_link_key(self) -> str:
        """What the links of vans' drivers are signed with, or a `SettingsError` that says what to set."""
        if self.shipping.driver_link_key is not None:
            return self.shipping.driver_link_key.get_secret_value()
        for key in self.auth.keys:
            if key.algorithm == "HS256":
                return sha256(b"floodgate-van " + key.secret.get_secret_value().encode()).hexdigest()
        raise SettingsError("drivers' links need a key: set FLOODGATE_SHIPPING__DRIVER_LINK_KEY")


_OTHER_VARIABLES = {
    "FLOODGATE_CONFIG",
    "FLOODGATE_FAILPOINT",
    "FLOODGATE_TEST_LOOPS",
    "FLOODGATE_TEST_EXAMPLES",
    "FLOODGATE_TEST_DATASET",
}
_NO_SERVER = (
    "no {what} is known: set {variable}, or start everything on this machine with `floodgate up` (data in {data_dir})"
)


def servers_file(data_dir: Path) -> Path:
    """Written by `floodgate up` while its servers run."""
    return data_dir / "run" / "servers.toml"


def local_file(data_dir: Path) -> Path:
    """Written once by `floodgate up`: this machine's own signing key."""
    return data_dir / "local.toml"


def _readable(file: Path) -> bool:
    try:
        return file.is_file() and os.access(file, os.R_OK)
    except OSError:
        return False


def load(**overrides: object) -> Settings:
    """Build the settings; `overrides` win over every source. Raises `SettingsError` naming every fault."""
    known = {f"FLOODGATE_{name}".upper() for name in Settings.model_fields} | _OTHER_VARIABLES
    strange = [name for name in os.environ if name.startswith("FLOODGATE_") and name.split("__")[0] not in known]
    if strange:
        raise SettingsError(f"no setting is called {', '.join(sorted(strange))}: see `floodgate settings`")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"the settings cannot be used:\n{faults}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"the settings cannot be read: {error}") from None
