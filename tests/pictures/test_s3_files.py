"""Files in a bucket, on a server that speaks S3; and pictures of a shop whose files are there."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest

from commerce.kernel.errors import NotReady
from commerce.kernel.s3_files import S3Account, open_s3_files
from config.pictures import S3Settings
from config.settings import Settings
from ops.local.subprocesses import ProcessSpec
from ops.picture_backup import back_up_pictures, restore_pictures
from ops.services import CliServices, open_cli_services
from tests.support.gateway import open_gateway, run_workers
from tests.support.picture_shop import create_products, list_files, picture, upload
from tests.support.processes import free_port
from tests.support.servers import run_process

pytestmark = pytest.mark.skipif(find_spec("moto") is None, reason="the server of S3 is not installed")
CONTENT, DIGEST = b"content", sha256(b"content").digest()


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server in a process of its own."""
    port = free_port()

    async def check() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()

    argv = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    log = tmp_path_factory.mktemp("s3") / "log"
    with run_process(ProcessSpec("s3", argv, log, stop_signal=signal.SIGKILL, check_ready=check)):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def account(s3_url: str) -> S3Settings:
    """An account with a new bucket."""
    settings = S3Settings(
        bucket=f"b{uuid4().hex}", endpoint_url=s3_url, prefix="pictures/", access_key="key", secret_key="secret"
    )
    files = open_s3_files(S3Account(**settings.as_strings()))
    files.client.create_bucket(Bucket=settings.bucket)
    return settings


def test_file_is_stored_read_and_deleted_and_repeats_change_nothing(account: S3Settings) -> None:
    files = open_s3_files(S3Account(**account.as_strings()))
    assert files.get(DIGEST) is None
    for _ in range(2):
        files.put(DIGEST, CONTENT)
    assert files.get(DIGEST) == CONTENT
    listed = files.client.list_objects_v2(Bucket=account.bucket)["Contents"]
    assert [item["Key"] for item in listed] == [f"pictures/{DIGEST.hex()}"]
    for _ in range(2):
        files.delete(DIGEST)
    assert files.get(DIGEST) is None


@pytest.mark.parametrize("change", [{"bucket": "missing-bucket"}, {"endpoint_url": "http://127.0.0.1:9"}])
def test_bucket_that_cannot_be_used_is_no_missing_file(account: S3Settings, change: dict[str, str]) -> None:
    files = open_s3_files(S3Account(**{**account.as_strings(), **change}))
    for call in (lambda: files.get(DIGEST), lambda: files.put(DIGEST, CONTENT), lambda: files.delete(DIGEST)):
        with pytest.raises(NotReady) as error:
            call()
        assert "secret" not in str(error.value)


async def test_pictures_of_a_shop_are_in_the_bucket_and_in_its_backup(
    account: S3Settings, make_settings: Callable[..., Settings], shop: CliServices, tmp_path: Path
) -> None:
    await create_products(shop)
    settings = make_settings(pictures={"s3": account.model_dump() | {"secret_key": "secret"}})
    files, archive = open_s3_files(S3Account(**account.as_strings())), tmp_path / "pictures.tar"
    async with open_gateway(settings) as staff, run_workers(settings, "picture_worker"):
        item = await upload(staff, picture((600, 400)))
        served = [await staff.services.pictures.served.read(item["digest"], size) for size in (256, 512)]
        assert not list_files(settings), "nothing is in the folder"
    async with open_cli_services(settings) as in_bucket:
        counts = await back_up_pictures(in_bucket, archive)
        assert (counts.stored, counts.missing) == (3, 0)
        for file in served:
            await asyncio.to_thread(files.delete, sha256(file.content).digest())
        assert (await back_up_pictures(in_bucket, tmp_path / "later.tar")).missing == 2
        assert await restore_pictures(in_bucket, archive) == 3
    for file in served:
        assert await asyncio.to_thread(files.get, sha256(file.content).digest()) == file.content
    assert await restore_pictures(shop, archive) == 3
    assert list_files(settings) >= {sha256(file.content).hexdigest() for file in served}, "and into a folder"
