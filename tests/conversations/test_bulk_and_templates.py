"""Changes of many with a preview, templates of replies, and saved views."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import DeadlockDetectedError

from commerce.conversations import bulk_changes
from commerce.conversations.errors import (
    NoSuchPreview,
    NoSuchTemplate,
    NoSuchView,
    PlaceholderMissing,
    PlaceholderUnknown,
    PreviewMismatch,
    TooManyToChange,
)
from commerce.conversations.reply_templates import PLACEHOLDERS, check_placeholders
from commerce.conversations.support_model import (
    AssignInput,
    BulkAction,
    BulkInput,
    BulkOutcome,
    QueueFilter,
    TemplateInput,
    ViewInput,
)
from commerce.kernel.errors import Conflict, Invalid
from ops.services import CliServices
from tests.support.conversation_shop import ACTOR, STAFF, ConversationShop, open_conversation_shop


async def _preview(talks: ConversationShop, filter_: QueueFilter | None = None, **action: Any) -> tuple[UUID, int]:
    bulk = BulkInput(filter=filter_ or QueueFilter(), action=BulkAction(**action))
    preview = await talks.service.preview_bulk(bulk, ACTOR)
    assert len(preview.sample) == min(preview.count, 20)
    return preview.preview_id, preview.count


async def _apply(talks: ConversationShop, preview_id: UUID, count: int) -> BulkOutcome:
    return await talks.service.bulk.apply(preview_id, count, STAFF, ACTOR)


@pytest.mark.parametrize(
    ("action", "column", "value"),
    [
        ({"assignee": "max"}, "assignee", "max"),
        ({"priority": 1}, "priority", 1),
        ({"add_tag": "flood"}, "tags", ["flood"]),
        ({"status": "resolved"}, "status", "resolved"),
        ({"reply": "All is well"}, "status", "waiting_customer"),
    ],
)
async def test_bulk_changes_all_that_the_preview_has_shown(
    talks: ConversationShop, action: dict[str, Any], column: str, value: object
) -> None:
    questions = [await talks.open_question(f"user-{number}") for number in range(4)]
    preview_id, count = await _preview(talks, **action)
    late = await talks.open_question()
    await talks.write(questions[0], user="user-0")
    outcome = await _apply(talks, preview_id, count)
    assert (outcome.changed, [(each.conversation_id, each.code) for each in outcome.refused]) == (
        3,
        [(questions[0], "version_conflict")],
    )
    values = [getattr(await talks.read(each), column) for each in (*questions, late)]
    assert values[1:4] == [value] * 3
    assert value not in (values[0], values[4])
    assert await _apply(talks, preview_id, count) == outcome  # a repeat changes nothing
    assert (await talks.texts(questions[1])).count("All is well") == (
        column == "status" and value == "waiting_customer"
    )


async def test_bulk_refuses_another_count_an_old_preview_and_another_actor(talks: ConversationShop) -> None:
    await talks.open_question()
    preview_id, count = await _preview(talks, priority=1)
    with pytest.raises(PreviewMismatch):
        await _apply(talks, preview_id, count + 1)
    with pytest.raises(NoSuchPreview):
        await talks.service.bulk.apply(preview_id, count, "max", "staff max")
    with pytest.raises(NoSuchPreview):
        await _apply(talks, uuid4(), 0)
    await talks.fetch_rows("UPDATE bulk_previews SET created_at = created_at - $1::interval", timedelta(minutes=16))
    with pytest.raises(NoSuchPreview):
        await _apply(talks, preview_id, count)
    await talks.fetch_rows("UPDATE bulk_previews SET created_at = created_at - $1::interval", timedelta(days=1))
    await _preview(talks, priority=1)
    assert len(await talks.fetch_rows("SELECT preview_id FROM bulk_previews")) == 1


async def test_bulk_is_bounded_and_has_one_action(talks: ConversationShop, monkeypatch: pytest.MonkeyPatch) -> None:
    for action in ({}, {"priority": 1, "assignee": None}):
        with pytest.raises(Invalid, match="exactly one"):
            await _preview(talks, **action)
    monkeypatch.setattr(bulk_changes, "MAX_BULK", 2)
    for number in range(3):
        await talks.open_question(f"user-{number}")
    with pytest.raises(TooManyToChange):
        await _preview(talks, priority=1)
    assert (await _preview(talks, QueueFilter(kind="return"), priority=1))[1] == 0


async def test_bulk_goes_on_after_one_that_postgres_refuses(
    talks: ConversationShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [await talks.open_question(f"user-{number}") for number in range(3)]
    preview_id, count = await _preview(talks, assignee="max")
    assign = talks.service.actions.assign

    async def assign_or_fail(conversation_id: UUID, assignment: AssignInput, actor: str) -> None:
        if conversation_id == questions[1]:
            raise DeadlockDetectedError("deadlock detected")
        await assign(conversation_id, assignment, actor)

    monkeypatch.setattr(talks.service.actions, "assign", assign_or_fail)
    outcome = await _apply(talks, preview_id, count)
    assert [(each.conversation_id, each.code) for each in outcome.refused] == [(questions[1], "outcome_unknown")]
    assert [(await talks.read(each)).assignee for each in questions] == ["max", None, "max"]
    assert await _apply(talks, preview_id, count) == outcome


async def test_bulk_applied_twice_at_once_changes_each_once(talks: ConversationShop) -> None:
    questions = [await talks.open_question(f"user-{number}") for number in range(5)]
    preview_id, count = await _preview(talks, reply="Hello")
    results = await asyncio.gather(*(_apply(talks, preview_id, count) for _ in range(4)), return_exceptions=True)
    assert [each.changed for each in results if isinstance(each, BulkOutcome)][:1] == [5]
    assert all(isinstance(each, (BulkOutcome, PreviewMismatch)) for each in results)
    assert [(await talks.texts(each)).count("Hello") for each in questions] == [1] * 5


async def _put(talks: ConversationShop, text: str, language: Any = "en", name: str = "sorry") -> None:
    await talks.service.templates.put(name, language, TemplateInput(title="Sorry", text=text), ACTOR)


async def test_template_is_filled_in_the_language_of_the_conversation(talks: ConversationShop) -> None:
    await _put(talks, "Dear {customer}, {staff} looks at {{{subject}}}: {text}")
    await _put(talks, "{customer}您好", "zh")
    english, chinese = await talks.open_question(), await talks.open_question(text="我的包裹呢")
    await talks.reply(english, None, template="sorry", values={"text": "soon {order_id}"})
    await talks.reply(chinese, None, template="sorry")
    assert (await talks.texts(english))[1] == "Dear user, sue looks at {My order}: soon {order_id}"
    assert (await talks.texts(chinese))[1] == "user您好"
    await talks.service.templates.delete("sorry", "en")
    assert (await talks.service.templates.render("sorry", english, STAFF)).text == "user您好"
    with pytest.raises(NoSuchTemplate):
        await talks.service.templates.render("none", english, STAFF)
    with pytest.raises(NoSuchTemplate):
        await talks.service.templates.delete("sorry", "en")


@pytest.mark.parametrize(
    "text",
    ["{nothing}", "{}", "{0}", "{customer", "}", "{customer!r}", "{customer:>9}", "{customer.name}", "{customer[0]}"],
)
async def test_unknown_placeholder_is_refused_when_it_is_stored(talks: ConversationShop, text: str) -> None:
    with pytest.raises(PlaceholderUnknown):
        await _put(talks, text)


def test_all_placeholders_are_known() -> None:
    check_placeholders(" ".join(f"{{{name}}}" for name in PLACEHOLDERS))


async def test_missing_value_is_refused_when_a_template_is_used(talks: ConversationShop) -> None:
    question = await talks.open_question()
    for name in ("amount", "order_id", "tracking_no"):
        await _put(talks, f"{{{name}}}!")
        with pytest.raises(PlaceholderMissing, match=name):
            await talks.reply(question, None, template="sorry")
    await talks.reply(question, None, template="sorry", values={"tracking_no": "SF1"})
    for values in ({"customer": "mallory"}, {"nothing": "x"}):
        with pytest.raises(Invalid):
            await talks.reply(question, None, template="sorry", values=values)
    assert (await talks.texts(question))[1:] == ["SF1!"]


async def test_templates_are_listed_page_by_page(talks: ConversationShop) -> None:
    for name in ("a", "b"):
        for language in ("zh", "en"):
            await _put(talks, "text", language, name)
    await _put(talks, "newer", "en", "b")
    page = await talks.service.templates.list_templates(None, None, 3)
    rest = await talks.service.templates.list_templates(None, page.next, 3)
    listed = [(each.template_id, each.language, each.version) for each in (*page.items, *rest.items)]
    assert listed == [("a", "en", 1), ("a", "zh", 1), ("b", "en", 2), ("b", "zh", 1)]
    assert len((await talks.service.templates.list_templates("zh", None, 3)).items) == 2


async def test_views_are_own_or_shared(shop: CliServices, tmp_path: Path) -> None:
    talks = open_conversation_shop(shop, tmp_path, views_per_staff=2)
    views, filter_ = talks.service.views, QueueFilter(tag="fire", is_overdue=True)
    own = await views.add("sue", ViewInput(name="Mine", filter=filter_))
    shared = await views.add("sue", ViewInput(name="Ours", filter=filter_, is_shared=True))
    assert (own.filter, shared.staff) == (filter_, "sue")
    with pytest.raises(Conflict):
        await views.add("sue", ViewInput(name="Third", filter=filter_))
    with pytest.raises(Conflict, match="called 'Ours'"):
        await views.replace(own.view_id, "sue", ViewInput(name="Ours", filter=filter_))
    assert [view.view_id for view in (await views.list_views("max", None, 9)).items] == [shared.view_id]
    assert len((await views.list_views("sue", None, 9)).items) == 2
    assert (await views.get(shared.view_id, "max")).name == "Ours"
    for attempt in (
        views.get(own.view_id, "max"),
        views.delete(shared.view_id, "max"),
        views.replace(shared.view_id, "max", ViewInput(name="Taken", filter=filter_)),
    ):
        with pytest.raises(NoSuchView):
            await attempt
    await views.delete(own.view_id, "sue")
    await views.add("sue", ViewInput(name="Mine", filter=filter_))
