"""Attachments that are never sent are deleted; gauges count what waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commerce.conversations.errors import NoSuchAttachment
from commerce.conversations.model import MessageInput
from commerce.conversations.service import ConversationGauges
from ops.services import CliServices
from tests.aftersales.test_case_evidence import picture
from tests.support.conversation_shop import ACTOR, ConversationShop


async def test_unsent_attachments_are_deleted_with_files_that_nobody_shares(
    talks: ConversationShop, tmp_path: Path
) -> None:
    files, customers = talks.service.files, talks.service.customers
    sent, same = [(await files.upload("customer user", picture())).attachment_id for _ in range(2)]
    other = (await files.upload(ACTOR, picture((9, 9)))).attachment_id
    question = await talks.open_question()
    await customers.write(question, "user", "k", MessageInput(text="look", attachments=[sent]))
    with pytest.raises(NoSuchAttachment):  # it was sent before
        await customers.write(question, "user", "k-2", MessageInput(text="look", attachments=[sent]))
    assert await files.delete_unused(datetime.now(UTC) - timedelta(days=1), 10) == 0
    assert await files.delete_unused(datetime.now(UTC) + timedelta(days=1), 10) == 2
    assert (await files.read_of_staff(sent)).media_type == "image/jpeg"
    for gone in (same, other):
        with pytest.raises(NoSuchAttachment):
            await files.read_of_staff(gone)
    assert len([file for file in tmp_path.rglob("*") if file.is_file() and "attachments" in file.parts]) == 1


async def test_gauges_count_unended_conversations(talks: ConversationShop, shop: CliServices) -> None:
    gauges = ConversationGauges(shop.db, shop.clock)
    counts, oldest_s = await gauges.measure()
    assert (set(counts.values()), oldest_s) == ({0}, 0.0)
    first, second, third = [await talks.open_question() for _ in range(3)]
    await talks.fetch_rows("UPDATE conversations SET created_at = created_at - interval '1 hour' RETURNING 1")
    await talks.reply(second)
    await talks.set_status(third, "closed")
    counts, oldest_s = await gauges.measure()
    assert (counts["new"], counts["waiting_customer"], counts["open"]) == (1, 1, 0)
    assert oldest_s >= 3_600
    await talks.service.actions.take(None, "sue", ACTOR)
    assert (await gauges.measure())[1] == 0.0
    assert (await talks.read(first)).assignee == "sue"
