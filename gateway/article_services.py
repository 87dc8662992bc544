"""The services of articles: those of readers, from memory, those of staff, and training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.knowledge.live_articles import LiveArticles
from commerce.knowledge.service import Knowledge
from commerce.rights.model import CertifiedRight
from commerce.training.attempts import QuizAttempts
from commerce.training.service import Training
from config.settings import Settings
from gateway.auth import ROLES, article_voter_key

_logger = logging.getLogger(__name__)


class ArticleServices:
    """`live` has the published articles, `knowledge` changes them.

    `training` has what staff must read and pass, `attempts` are their quizzes."""

    __slots__ = ("attempts", "knowledge", "live", "training")

    def __init__(self, settings: Settings, db: Database, clock: Clock, ids: IdGenerator) -> None:
        key = article_voter_key(settings.auth)
        # Without a key that all gateways share, a voter counts once per process.
        self.live = LiveArticles(db, clock, key.encode() if key else ids.new().bytes)
        zone = ZoneInfo(settings.shipping.timezone)
        self.knowledge = Knowledge(db, clock, zone)
        self.training = Training(db, clock, zone, ROLES)
        self.attempts = QuizAttempts(db, clock, ids)

    async def warn_of_missing_quizzes(self, certificates: Mapping[CertifiedRight, str]) -> None:
        """Log which certificates of `support.certificates` nobody can get: whoever needs them is refused."""
        for code in await self.training.list_missing(certificates.values()):
            _logger.warning("a right needs a certificate without a quiz: import it", extra={"quiz": code})
