"""The demonstration of support, which is created whole."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.conversations.support_teams import SupportTeams
from ops.local.demo_support import create_demo_support
from ops.services import CliServices

_COUNTS = """
SELECT (SELECT count(*) FROM article_versions WHERE status = 'published') AS articles,
       (SELECT count(*) FROM article_versions WHERE status <> 'published') AS others,
       (SELECT count(*) FROM quizzes) AS quizzes, (SELECT count(*) FROM required_readings) AS readings,
       (SELECT count(*) FROM support_teams) AS teams, (SELECT count(*) FROM reply_templates) AS templates,
       (SELECT count(*) FROM case_rule_sets) AS rules, (SELECT active_version FROM case_rule_state) AS active
"""


async def _count(shop: CliServices) -> tuple[int, ...]:
    async with shop.db.connection() as connection:
        return tuple(await connection.fetchrow(_COUNTS))


async def test_demonstration_that_was_interrupted_is_created_whole_the_next_time(
    shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SupportTeams, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            await create_demo_support(shop)
    await create_demo_support(shop)
    created = await _count(shop)
    assert created == (100, 0, 3, 2, 2, 4, 1, 1)
    await create_demo_support(shop)
    assert await _count(shop) == created
