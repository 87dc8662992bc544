"""Files in a bucket of Amazon S3, or of a service that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from commerce.kernel.errors import NotReady
from commerce.kernel.optional import require_extra

_TIMEOUT_S, _ATTEMPTS, _CONNECTIONS = 10, 3, 20


class S3Account(NamedTuple):
    """A bucket, and how to reach it. `endpoint_url` is that of another service than Amazon's."""

    bucket: str
    region: str
    endpoint_url: str
    prefix: str
    addressing: str
    access_key: str
    secret_key: str


class S3Files:
    """A `FileStore` in a bucket: each file is an object, named by its digest after a prefix.

    Methods raise `NotReady` if the service does not answer, or refuses."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self._bucket = bucket
        self._prefix = prefix

    def put(self, sha256: bytes, content: bytes) -> None:
        with self._explain_errors():
            self.client.put_object(Bucket=self._bucket, Key=self._key(sha256), Body=content)

    def get(self, sha256: bytes) -> bytes | None:
        with self._explain_errors():
            try:
                answer = self.client.get_object(Bucket=self._bucket, Key=self._key(sha256))
            except self.client.exceptions.NoSuchKey:
                return None
            return answer["Body"].read()  # type: ignore[no-any-return]

    def delete(self, sha256: bytes) -> None:
        with self._explain_errors():
            self.client.delete_object(Bucket=self._bucket, Key=self._key(sha256))

    def _key(self, sha256: bytes) -> str:
        return f"{self._prefix}{sha256.hex()}"

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # noqa: PLC0415  # an extra

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise NotReady(f"cannot use the bucket {self._bucket}: it answers {code}; check pictures.s3") from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise NotReady(f"cannot reach the bucket {self._bucket}: {type(error).__name__}; repeat it") from error


def open_s3_files(account: S3Account) -> S3Files:
    """Return the files of a bucket. Nothing is sent yet.

    Raises `NotReady` in an installation without the extra `s3`."""
    require_extra("store files in a bucket", "s3", "botocore")
    from botocore.config import Config  # noqa: PLC0415  # an extra
    from botocore.session import Session  # noqa: PLC0415

    config = Config(
        connect_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        s3={"addressing_style": account.addressing},
        # Other services than Amazon's refuse the checksums that the library sends by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = Session().create_client(
        "s3",
        region_name=account.region,
        endpoint_url=account.endpoint_url or None,
        aws_access_key_id=account.access_key or None,  # then from the environment, or the machine's role
        aws_secret_access_key=account.secret_key or None,
        config=config,
    )
    return S3Files(client, account.bucket, account.prefix)
