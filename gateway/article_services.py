"""The services of articles: those of readers, from memory, and those of staff."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.knowledge.live_articles import LiveArticles
from commerce.knowledge.service import Knowledge
from config.settings import Settings
from gateway.auth import article_voter_key


class ArticleServices:
    """`live` has the published articles, `knowledge` changes them."""

    __slots__ = ("knowledge", "live")

    def __init__(self, settings: Settings, db: Database, clock: Clock, ids: IdGenerator) -> None:
        key = article_voter_key(settings.auth)
        # Without a key that all gateways share, a voter counts once per process.
        self.live = LiveArticles(db, clock, key.encode() if key else ids.new().bytes)
        self.knowledge = Knowledge(db, clock, ZoneInfo(settings.shipping.timezone))
