"""Fixtures of the tests of conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.services import CliServices
from tests.support.conversation_shop import ConversationShop, open_conversation_shop


@pytest.fixture
async def talks(shop: CliServices, tmp_path: Path) -> AsyncIterator[ConversationShop]:
    """Conversations. After the test each change has its event."""
    opened = open_conversation_shop(shop, tmp_path)
    yield opened
    await opened.check_records()
