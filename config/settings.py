"""All settings and limits of Floodgate, with units in their names.

A value is taken from the first of these sources that has it:

1. the environment (`FLOODGATE_LIMITS__BODY_BYTES=65536`; `REDIS_URL` and `DATABASE_URL` have no prefix),
2. the TOML file named by `FLOODGATE_CONFIG`,
3. `DATA_DIR/run/servers.toml`, which `floodgate up` writes while its servers run,
4. `DATA_DIR/local.toml`, which `floodgate up` writes once, with this machine's signing key,
5. the default below.

`load()` reports the errors of all sources at once.
"""

from __future__ import annotations

import os
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from config.aftersales import AftersalesSettings
from config.auth import AuthSettings
from config.base import PRIVATE_NETWORKS, AbsolutePath, Port, Positive, Seconds, SettingsSection, make_absolute
from config.catalog import CatalogSettings
from config.conversations import ConversationSettings
from config.database_shares import DatabaseShareSettings
from config.payments import PaymentSettings
from config.pictures import PictureSettings
from config.product_imports import ProductImportSettings
from config.quality import QualitySettings
from config.retention import RetentionSettings
from config.screening import ScreeningSettings
from config.server_urls import DatabaseUrl, RedisUrl
from config.shipping import ShippingSettings
from config.shop import ShopSettings
from config.support import SupportSettings
from config.waiting_rooms import WaitingRoomSettings

Durability = Literal["fsync", "replicated", "memory"]


class SettingsError(Exception):
    """The settings cannot be used. The message names every error and where to fix it."""


class HttpSettings(SettingsSection):
    """Addresses of the gateway. The admin port also serves `/metrics`: keep it private."""

    host: str = "127.0.0.1"
    port: Port = 8080
    proxy_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=PRIVATE_NETWORKS,
        description="networks of proxies, whose many clients have one address: limits per address skip them",
    )
    forwarded_header: Literal["none", "x-forwarded-for", "forwarded"] = Field(
        default="none", description="header in which these proxies state the client: its rightmost address not of them"
    )
    proxy_protocol: bool = Field(
        default=False, description="connections from these proxies begin with a PROXY protocol header, v1 or v2"
    )
    admin_host: str = "127.0.0.1"
    admin_port: Port = 8081
    processes: int = Field(default=0, ge=0, description="gateway processes under `floodgate up`; 0: one per core")


class LimitSettings(SettingsSection):
    """Upper limits of requests, orders, batches and queues."""

    # Per request.
    body_bytes: Positive = 262_144
    header_line_bytes: Positive = 8_190
    headers_per_request: Positive = 64
    request_head_timeout_s: Seconds = 15
    request_body_timeout_s: Seconds = 10
    # After an answer that ends the connection: how long, and how much of what the client still sends is dropped.
    linger_timeout_s: Seconds = 5
    linger_bytes: Positive = 67_108_864
    connections: Positive = 10_000
    connections_per_address: Positive = 500  # an IPv6 address counts as its network of 64 bits
    admin_connections: Positive = 200
    concurrent_event_streams: Positive = 2_000
    concurrent_event_streams_per_user: Positive = 10
    concurrent_event_streams_per_address: Positive = 200
    event_stream_max_s: Seconds = 900
    lines_per_order: Positive = 1_000
    addresses_per_order: Positive = 50
    payments_per_order: Positive = 8
    coupons_per_order: Positive = 8
    quantity_per_line: Positive = 100_000
    promotions_per_sale: Annotated[int, Field(ge=1, le=1_000)] = 100
    # Of customers who have not ordered yet.
    addresses_per_user: Annotated[int, Field(ge=1, le=1_000)] = 50
    lines_per_cart: Annotated[int, Field(ge=1, le=10_000)] = 200
    orders_per_checkout: Positive = 20
    checkout_lease_s: Seconds = 15  # longer than an order takes
    checkout_repeat_s: Annotated[float, Field(gt=0, le=3_600)] = 600  # a repeat still places missing orders; keys last
    # Over all gateways: tokens refilled each second, and tokens of a full bucket.
    orders_per_user_per_s: Seconds = 5
    orders_per_user_burst: Positive = 20
    orders_per_address_per_s: Seconds = 200  # many customers may share one address
    orders_per_address_burst: Positive = 1_000
    orders_per_device_per_s: Seconds = 10
    orders_per_device_burst: Positive = 40
    guest_carts_per_address_per_s: Seconds = 10  # new ones, each of which is a row for weeks
    guest_carts_per_address_burst: Positive = 500
    article_calls_per_address_per_s: Seconds = 10  # searches, suggestions, clicks and ratings
    article_calls_per_address_burst: Positive = 200
    product_searches_per_address_per_s: Seconds = 50  # and suggestions while somebody types
    product_searches_per_address_burst: Positive = 500
    # Reserving in Redis.
    batch_orders: Annotated[int, Field(ge=1, le=2_000)] = 256  # a batch is one command, whose length is bounded
    batch_bytes: Positive = 1_048_576
    concurrent_reserve_calls: Positive = 8  # of full batches; one that is not full waits for the reply
    order_wait_target_ms: Positive = 25  # orders that would wait longer in this process are refused, by user
    waiting_bytes: Positive = 67_108_864
    backlog_orders: Positive = 1_000_000
    backlog_bytes: Positive = 4_294_967_296
    backlog_age_s: Seconds = 600
    waiting_joins: Positive = 20_000
    concurrent_draw_downloads: Positive = 20
    order_timeout_ms: Positive = 5_000
    redis_call_timeout_ms: Positive = 2_000
    redis_connections: Positive = 16
    # Postgres.
    database_connections: Positive = 4  # of a worker process, and of a running command
    database_timeout_s: Seconds = 10
    # Lists.
    page_items: Positive = 100
    # Stopping.
    graceful_stop_s: Seconds = 20


class WriterSettings(SettingsSection):
    """The order writer: reads and batches, and when it claims entries of a writer that died."""

    entries_per_read: Positive = 64
    orders_per_batch: Positive = 2_000
    concurrent_batches: Positive = 3
    concurrent_reads: Positive = 200
    read_block_ms: Positive = 1_000
    claim_idle_ms: Positive = 5_000
    backoff_max_s: Seconds = 5


class JobsSettings(SettingsSection):
    """Jobs of workers: claims, backoff, and limits of calls to external systems."""

    rows_per_claim: Positive = 500
    poll_ms: Positive = 200
    lease_s: Positive = 60  # longer than all calls of one job together
    backoff_initial_ms: Positive = 200
    backoff_max_s: Seconds = 60
    # Jobs that call external systems.
    max_attempts: Positive = 12
    concurrent_jobs: Positive = 100
    concurrent_jobs_per_system: Positive = 50
    call_timeout_s: Seconds = 8
    refunds_per_s: Seconds = 100
    breaker_failures: Positive = 20
    breaker_open_s: Seconds = 5


class SandboxSettings(SettingsSection):
    """Simulated providers and carriers of `floodgate up`, used if no account is configured.

    The clock of simulated shipments runs `time_factor` times as fast as real time."""

    port: Port = 8090
    time_factor: Positive = 3_600
    fault_scenario: AbsolutePath | None = None


class ObserverSettings(SettingsSection):
    """Intervals of the gauges and the audit, and the metrics port of worker processes."""

    gauges_every_s: Seconds = 2
    shipments_every_s: Seconds = Field(default=15, description="of worklists and open shipments: it reads them all")
    audit_every_s: Seconds = Field(default=60, description="of what has changed since a sale's last clean audit")
    audit_history_every_s: Seconds = Field(default=86_400, description="of all history of a sale")
    worker_metrics_host: str = "127.0.0.1"
    worker_metrics_port: Port = Field(
        default=0, description="0: the gateway exports the workers' metrics (one machine)"
    )


class LogSettings(SettingsSection):
    """Level and destination of logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: AbsolutePath | None = Field(default=None, description="a file that is rotated; if not set, standard error")
    file_bytes: Positive = 20_000_000


def default_data_dir() -> Path:
    """Return the default folder for the data of embedded servers: the user's, or else the machine's."""
    try:
        if os.geteuid() != 0:
            return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "floodgate"
    except RuntimeError:  # no HOME, and a user id without a name
        pass
    return Path("/var/lib/floodgate")


class Settings(BaseSettings):
    """All settings. Create them with `load()`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FLOODGATE_", env_nested_delimiter="__", hide_input_in_errors=True
    )

    data_dir: AbsolutePath = Field(default_factory=default_data_dir)
    redis_url: RedisUrl | None = Field(default=None, validation_alias="redis_url")
    database_url: DatabaseUrl | None = Field(default=None, validation_alias="database_url")
    durability: Durability = Field(
        default="fsync",
        description="what a 202 means; 'replicated' promises the memory of `replicas` replicas and requires no disk",
    )
    replicas: int = Field(default=1, ge=1, description="replicas that must confirm, with durability 'replicated'")
    metrics_dir: AbsolutePath | None = Field(default=None, description="shared by the processes of one machine")
    shop: ShopSettings = ShopSettings()
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    database_shares: DatabaseShareSettings = DatabaseShareSettings()
    writer: WriterSettings = WriterSettings()
    jobs: JobsSettings = JobsSettings()
    observer: ObserverSettings = ObserverSettings()
    payments: PaymentSettings = PaymentSettings()
    shipping: ShippingSettings = ShippingSettings()
    rooms: WaitingRoomSettings = WaitingRoomSettings()
    screening: ScreeningSettings = ScreeningSettings()
    aftersales: AftersalesSettings = AftersalesSettings()
    support: SupportSettings = SupportSettings()
    conversations: ConversationSettings = ConversationSettings()
    pictures: PictureSettings = PictureSettings()
    catalog: CatalogSettings = CatalogSettings()
    quality: QualitySettings = QualitySettings()
    product_imports: ProductImportSettings = ProductImportSettings()
    retention: RetentionSettings = RetentionSettings()
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
        sources: list[TomlConfigSettingsSource] = []
        data_dir = os.environ.get("FLOODGATE_DATA_DIR")
        if config_file := os.environ.get("FLOODGATE_CONFIG"):
            file = make_absolute(Path(config_file))
            if not file.is_file():
                raise SettingsError(
                    f"cannot read FLOODGATE_CONFIG: there is no file {config_file}; name an existing one"
                )
            sources.append(_read_toml(settings_cls, file, "correct it"))
            data_dir = data_dir or str(sources[0].toml_data.get("data_dir") or "")
        home = make_absolute(Path(data_dir)) if data_dir else default_data_dir()
        for file, remedy in (
            (servers_file(home), "delete it; `floodgate up` writes it at each start"),
            (local_file(home), "correct it, or delete it: `floodgate up` then creates a new key, and old tokens end"),
        ):
            if _is_readable(file):
                sources.append(_read_toml(settings_cls, file, remedy))
        return (init_settings, env_settings, *sources)

    def redis(self) -> str:
        """Return the Redis URL. Raises `SettingsError` with what to do if there is none."""
        if self.redis_url is None:
            raise SettingsError(_NO_SERVER.format(server="Redis", variable="REDIS_URL", data_dir=self.data_dir))
        return self.redis_url.get_secret_value()

    def database(self) -> str:
        """Return the Postgres URL. Raises `SettingsError` with what to do if there is none."""
        if self.database_url is None:
            raise SettingsError(_NO_SERVER.format(server="Postgres", variable="DATABASE_URL", data_dir=self.data_dir))
        return self.database_url.get_secret_value()

    def product_index_socket(self) -> Path:
        """Return the socket of the index of products in memory."""
        return self.catalog.index_socket or self.data_dir / "product_index.sock"

    def driver_link_key(self) -> str:
        """Return the key that signs drivers' links. Raises `SettingsError` with what to set if there is none."""
        if self.shipping.driver_link_key is not None:
            return self.shipping.driver_link_key.get_secret_value()
        for key in self.auth.keys:
            if key.algorithm == "HS256":
                # The prefix never changes: another one would make the links invalid that were sent already.
                return sha256(b"floodgate-van " + key.secret.get_secret_value().encode()).hexdigest()
        raise SettingsError("cannot sign drivers' links: there is no key; set FLOODGATE_SHIPPING__DRIVER_LINK_KEY")


_OTHER_VARIABLES = {
    "FLOODGATE_CONFIG",
    "FLOODGATE_DRILL_CASES",
    "FLOODGATE_DRILL_ORDERS",
    "FLOODGATE_DRILL_RUNS",
    "FLOODGATE_DRILL_CUSTOMERS",
    "FLOODGATE_DRILL_SEED",
    "FLOODGATE_FAILPOINT",
    "FLOODGATE_TEST_LOOPS",
    "FLOODGATE_TEST_EXAMPLES",
    "FLOODGATE_TEST_SEED",
    "FLOODGATE_DRILL_PRODUCTS",
    "FLOODGATE_TEST_CATALOGS",
    "FLOODGATE_TEST_DATASET",
    "FLOODGATE_TEST_TAXONOMY",
}
_NO_SERVER = (
    "cannot find {server}: set {variable}, or start everything on this machine with `floodgate up` (data in {data_dir})"
)


def servers_file(data_dir: Path) -> Path:
    """Return the file that `floodgate up` writes while its servers run."""
    return data_dir / "run" / "servers.toml"


def local_file(data_dir: Path) -> Path:
    """Return the file with this machine's own signing key, which `floodgate up` writes once."""
    return data_dir / "local.toml"


def _read_toml(settings_cls: type[BaseSettings], file: Path, remedy: str) -> TomlConfigSettingsSource:
    """Read a file of settings. Raises `SettingsError` with the remedy if it is not TOML, as after a crash."""
    try:
        return TomlConfigSettingsSource(settings_cls, file)
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}; check its permissions") from None
    except ValueError as error:
        raise SettingsError(f"cannot read {file}: {error}; {remedy}") from None


def _is_readable(file: Path) -> bool:
    try:
        return file.is_file() and os.access(file, os.R_OK)
    except OSError:
        return False


def load(**overrides: object) -> Settings:
    """Create the settings; `overrides` precede every source. Raises `SettingsError` with all errors."""
    valid = {f"FLOODGATE_{name}".upper() for name in Settings.model_fields} | _OTHER_VARIABLES
    unknown = [name for name in os.environ if name.startswith("FLOODGATE_") and name.split("__")[0] not in valid]
    if unknown:
        raise SettingsError(f"no setting is called {', '.join(sorted(unknown))}: see `floodgate settings`")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        messages = [
            f"{'.'.join(str(part) for part in field_error['loc']) or 'settings'}: "
            + field_error["msg"].removeprefix("Value error, ")
            for field_error in error.errors(include_url=False, include_input=False)
        ]
        separator = " " if len(messages) == 1 else "\n  "
        raise SettingsError(f"cannot use the settings:{separator}{separator.join(messages)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the settings: {error}") from None
