"""Redis behind TLS: the multiplexer of the hot path and redis-py interpret a URL in the same way."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import ConnectionError as RedisConnectionError

from commerce.kernel.redis_client import open_redis
from commerce.kernel.redis_multiplexer import RedisConnectionLost, RedisMultiplexer
from tests.support.servers import Servers


class CertificateAuthority:
    """Issues certificates and keeps them, with their keys, as files in a directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Floodgate's test authority")])
        self.file = home / "ca.pem"
        certificate = self._make(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _make(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
        subject_id, issuer = x509.SubjectKeyIdentifier.from_public_key, self._key.public_key()
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(subject_id(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
            )
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, address: str) -> tuple[Path, Path]:
        """Issue a certificate for an address. Returns the files of the certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._make(subject, key, x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]))
        files = self._home / f"{name}.pem", self._home / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return files


class TlsTunnel:
    """A TLS proxy in front of the tests' Redis."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def listen(self, certificate: tuple[Path, Path], clients_from: Path | None = None) -> asyncio.Server:
        """Listen on a port of 127.0.0.1. With `clients_from`, clients need a certificate of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if clients_from is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_from)
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(self._socket)
        await asyncio.gather(self._forward(reader, redis_writer), self._forward(redis_reader, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def tunnel(servers: Servers) -> TlsTunnel:
    return TlsTunnel(servers.redis_url.removeprefix("unix://"))


async def can_connect(server: asyncio.Server, **options: object) -> bool:
    """Check if the multiplexer gets an answer with these URL options; redis-py must agree."""
    port = server.sockets[0].getsockname()[1]
    url = f"rediss://127.0.0.1:{port}/0?{urlencode(options)}"
    multiplexer = RedisMultiplexer(url, timeout_s=5, name="test", required_durability=("fsync", 1))
    client = open_redis(url, timeout_ms=5_000, connections=1, name="test", required_durability=("fsync", 1))
    try:
        is_connected = await multiplexer.execute_command("PING") == b"PONG"
    except RedisConnectionLost:
        is_connected = False
    finally:
        await multiplexer.close()
    try:
        assert await client.ping() is is_connected
    except RedisConnectionError:
        assert not is_connected
    finally:
        await client.aclose()
    return is_connected


async def test_certificate_of_unknown_authority_is_refused(authority: CertificateAuthority, tunnel: TlsTunnel) -> None:
    async with await tunnel.listen(authority.issue("server", "127.0.0.1")) as server:
        assert await can_connect(server, ssl_ca_certs=authority.file)
        assert not await can_connect(server)  # it is not among the system's authorities
        assert await can_connect(server, ssl_cert_reqs="none", ssl_check_hostname="false")
        assert not await can_connect(server, ssl_ca_certs=authority.file.with_name("missing.pem"))


async def test_certificate_for_another_name_is_refused(authority: CertificateAuthority, tunnel: TlsTunnel) -> None:
    async with await tunnel.listen(authority.issue("server", "127.0.0.9")) as server:
        assert not await can_connect(server, ssl_ca_certs=authority.file)
        assert await can_connect(server, ssl_ca_certs=authority.file, ssl_check_hostname="false")


async def test_server_requiring_client_certificate_gets_it(authority: CertificateAuthority, tunnel: TlsTunnel) -> None:
    certificate, key = authority.issue("client", "127.0.0.1")
    async with await tunnel.listen(authority.issue("server", "127.0.0.1"), authority.file) as server:
        assert not await can_connect(server, ssl_ca_certs=authority.file)
        assert await can_connect(server, ssl_ca_certs=authority.file, ssl_certfile=certificate, ssl_keyfile=key)
