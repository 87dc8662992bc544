"""The services of pictures of products."""

from __future__ import annotations

from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.pictures.picture_policy import open_picture_files
from commerce.pictures.served_files import ServedFiles
from commerce.pictures.service import ProductPictures
from config.settings import Settings
from gateway.uploads import UploadSlots


class PictureServices:
    """`products` changes the pictures of products, `served` reads their files.

    `uploads` counts those of staff, which customers' uploads do not wait for."""

    __slots__ = ("products", "served", "uploads")

    def __init__(self, settings: Settings, db: Database, clock: Clock, ids: IdGenerator) -> None:
        files = open_picture_files(settings.pictures, settings.data_dir)
        self.products = ProductPictures(db, clock, ids, settings.pictures, files)
        self.served = ServedFiles(db, settings.pictures, files)
        self.uploads = UploadSlots()
