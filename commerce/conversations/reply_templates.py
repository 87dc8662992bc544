"""Templates of replies: stored in two languages, and filled for a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from uuid import UUID

from commerce.conversations import store, support_store
from commerce.conversations.errors import (
    NoSuchConversation,
    NoSuchTemplate,
    PlaceholderMissing,
    PlaceholderUnknown,
)
from commerce.conversations.model import MAX_TEXT, ConversationSummary, Language
from commerce.conversations.support_model import RenderedReply, ReplyTemplate, TemplateInput
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.types import is_filled

PLACEHOLDERS: Mapping[str, str] = {
    "order_id": "the order of the conversation",
    "case_id": "the case of the conversation",
    "customer": "the customer's user id",
    "subject": "the subject of the conversation",
    "amount": "what the decided case comes to",
    "staff": "whoever replies",
    "tracking_no": "given with the reply",
    "date": "given with the reply",
    "text": "given with the reply",
}
"""placeholders of templates, and where their values come from"""
GIVEN_PLACEHOLDERS = ("tracking_no", "date", "text")
_LANGUAGES: tuple[Language, ...] = ("zh", "en")


class ReplyTemplates:
    """Templates of replies, by id and language."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_templates(self, language: Language | None, cursor: str | None, count: int) -> Page[ReplyTemplate]:
        """List templates by id; `cursor` is `ID.LANGUAGE`."""
        after = ("", "") if cursor is None else (cursor[:-3], cursor[-2:])
        async with self._db.connection() as connection:
            templates = await support_store.list_templates(connection, language, after, count + 1)
        return to_page(templates, count, lambda template: f"{template.template_id}.{template.language}")

    async def put(self, template_id: str, language: Language, template: TemplateInput, actor: str) -> ReplyTemplate:
        """Create a template in a language, or replace it. Raises `PlaceholderUnknown`."""
        check_placeholders(template.text)
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            await support_store.put_template(connection, template_id, language, template, now, actor)
            stored = await support_store.get_template(connection, template_id, language)
        assert stored is not None
        return stored

    async def delete(self, template_id: str, language: Language) -> None:
        """Delete a template in a language. Raises `NoSuchTemplate`."""
        async with self._db.connection() as connection:
            if not await support_store.delete_template(connection, template_id, language):
                raise NoSuchTemplate(f"there is no template {template_id} in {language}")

    async def render(self, template_id: str, conversation_id: UUID, staff: str) -> RenderedReply:
        """Return the text of a template for a conversation, to look at. Raises as `render_template`."""
        async with self._db.connection() as connection:
            conversation = await store.get(connection, conversation_id)
            if conversation is None:
                raise NoSuchConversation(f"there is no conversation {conversation_id}")
            return RenderedReply(await render_template(connection, template_id, conversation, staff, {}))


async def render_template(
    connection: Connection,
    template_id: str,
    conversation: ConversationSummary,
    staff: str,
    values: Mapping[str, str],
) -> str:
    """Fill a template in the conversation's language; in the other one if there is only that.

    Raises `NoSuchTemplate`, `PlaceholderMissing`, `Invalid` for values of no placeholder or a text that is too long."""
    if unknown := values.keys() - set(GIVEN_PLACEHOLDERS):
        detail = f"no placeholder is filled by it; use {', '.join(GIVEN_PLACEHOLDERS)}"
        raise Invalid.at(f"/values/{min(unknown)}", detail)
    languages = sorted(_LANGUAGES, key=lambda language: language != conversation.language)
    for language in languages:
        template = await support_store.get_template(connection, template_id, language)
        if template is not None:
            break
    else:
        raise NoSuchTemplate(f"there is no template {template_id}")
    text = _fill(template.text, _values(conversation, staff) | {name: value for name, value in values.items() if value})
    if len(text) > MAX_TEXT:
        raise Invalid.at("/values", f"the filled text has {len(text)} characters, more than {MAX_TEXT}: shorten them")
    return text


def check_placeholders(text: str) -> None:
    """Check that all placeholders of a text are known. Raises `PlaceholderUnknown`."""
    for name in _names(text):
        if name not in PLACEHOLDERS:
            names = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
            raise PlaceholderUnknown.at("/text", f"{{{name[:40]}}} is no placeholder; there are {names}")


def _names(text: str) -> list[str]:
    """Return the placeholders of a text; `{{` and `}}` stand for braces."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise PlaceholderUnknown.at("/text", f"{error}; write {{{{ for a brace") from None
    if any(spec or conversion for _, _, spec, conversion in parts):
        detail = "a placeholder is a name in braces, without a colon or an exclamation mark"
        raise PlaceholderUnknown.at("/text", detail)
    return [name for _, name, _, _ in parts if name is not None]


def _fill(text: str, values: Mapping[str, str]) -> str:
    missing = [name for name in _names(text) if name not in values]
    if missing:
        is_given = missing[0] in GIVEN_PLACEHOLDERS
        hint = f"send it in /values/{missing[0]}" if is_given else "write the reply without the template"
        raise PlaceholderMissing(f"there is no value for {{{missing[0]}}}: {hint}")
    filled = "".join(literal + values.get(name or "", "") for literal, name, _, _ in Formatter().parse(text))
    if not is_filled(filled):
        raise Invalid.at("/template", "the filled text is empty")
    return filled


def _values(conversation: ConversationSummary, staff: str) -> dict[str, str]:
    values = {
        "order_id": conversation.order_id,
        "case_id": conversation.case_id,
        "customer": conversation.user_id,
        "subject": conversation.subject,
        "staff": staff,
    }
    filled = {name: str(value) for name, value in values.items() if value is not None}
    if conversation.amount is not None and conversation.currency is not None:
        filled["amount"] = format_money(conversation.amount, conversation.currency)
    return filled
