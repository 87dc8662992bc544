"""Settings of the pictures of products."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from config.base import AbsolutePath, CredentialSection, Port, Positive, Seconds, SettingsSection


class S3Settings(CredentialSection):
    """A bucket of Amazon S3, or of a service that speaks its protocol.

    Without keys they are those of the environment or of the machine's role."""

    bucket: str = Field(min_length=1)
    region: str = "us-east-1"
    endpoint_url: str = Field(
        default="", description="of another service than Amazon's, such as https://minio.internal"
    )
    prefix: str = Field(default="", description="before the names of all files, such as pictures/")
    addressing: Literal["auto", "path", "virtual"] = "auto"
    access_key: str = ""
    secret_key: SecretStr = SecretStr("")


class PictureSettings(SettingsSection):
    """Limits of pictures of products, and the place of their files."""

    folder: AbsolutePath | None = Field(
        default=None, description="shared by all gateways and workers; if not set, DATA_DIR/pictures"
    )
    s3: S3Settings | None = Field(default=None, description="in place of the folder")
    max_bytes: Positive = 16_777_216
    max_pixels: Annotated[int, Field(ge=1, lt=100_000_000)] = 50_000_000
    per_product: Positive = 30
    upload_timeout_s: Seconds = 60
    concurrent_uploads: Positive = 4  # per process, each with up to `max_bytes`
    # Of the process that renders one picture. One that needs more CPU time or memory is refused; one that takes longer
    # because the machine is busy is tried again.
    render_cpu_s: Annotated[int, Field(ge=1, le=30)] = 15
    render_timeout_s: Annotated[float, Field(gt=0, le=30)] = 30
    render_memory_bytes: Annotated[int, Field(ge=268_435_456)] = 1_610_612_736
    concurrent_renders: Positive = 2  # per worker
    fetch_timeout_s: Annotated[float, Field(gt=0, le=25)] = 15
    fetch_ports: tuple[Port, ...] = (80, 443)
    fetch_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="networks inside from which pictures may be fetched, beside the public internet"
    )
    cache_bytes: int = Field(default=33_554_432, ge=0, description="files in the memory of each gateway process")
    concurrent_reads: Positive = 16  # per gateway process
