"""Conversations over HTTP, for customers and staff."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest

from tests.aftersales.test_case_evidence import bomb, picture
from tests.support.gateway import TestGateway, bearer

_PDF = b"%PDF-1.7\n1 0 obj <</JS (app.alert(1))>> endobj\n%%EOF\n"


async def _staff(
    gateway: TestGateway, method: str, path: str, *, user: str = "sue", role: str = "support", **kwargs: Any
) -> Any:
    return await gateway.call(method, f"/v1/admin{path}", user=user, roles=[role], **kwargs)


async def _open_question(gateway: TestGateway, user: str = "user", **fields: Any) -> str:
    body = {"subject": "My order", "text": "Where is it?", **fields}
    answer = await gateway.call(
        "POST", "/v1/conversations", user=user, json=body, headers={"Idempotency-Key": str(uuid4())}
    )
    assert answer.status == 201, answer.text
    return str(answer.body["conversation"]["conversation_id"])


async def test_customer_and_staff_talk_until_satisfaction(gateway: TestGateway) -> None:
    body, key = {"subject": "My order", "text": "<b>Where</b> is it?"}, {"Idempotency-Key": "k"}
    assert (await gateway.call("POST", "/v1/conversations", json=body)).status == 400  # without a key
    created = await gateway.call("POST", "/v1/conversations", json=body, headers=key)
    assert created.status == 201, created.text
    path = created.headers["Location"]
    assert (await gateway.call("POST", "/v1/conversations", json=body, headers=key)).status == 200
    other = await gateway.call("POST", "/v1/conversations", json={**body, "text": "x"}, headers=key)
    assert (other.status, other.code) == (422, "key_reused")
    taken = await _staff(gateway, "POST", "/conversations/take")
    assert (taken.status, taken.body["conversation"]["assignee"]) == (200, "sue")
    assert (await _staff(gateway, "POST", "/conversations/take", user="max")).status == 204
    version, id_ = taken.body["conversation"]["version"], taken.body["conversation"]["conversation_id"]
    assert path == f"/v1/conversations/{id_}"
    stale = await _staff(gateway, "POST", f"/conversations/{id_}/reply", json={"version": version - 1, "text": "x"})
    assert (stale.status, stale.code) == (409, "version_conflict")
    note = await _staff(gateway, "POST", f"/conversations/{id_}/note", json={"version": version, "text": "secret"})
    assert note.status == 200, note.text
    reply = {"version": version + 1, "text": "Tomorrow.", "status": "resolved"}
    repeat = {"Idempotency-Key": "r"}
    for _ in range(2):
        answer = await _staff(gateway, "POST", f"/conversations/{id_}/reply", json=reply, headers=repeat)
        assert answer.status == 200, answer.text
    thread = await gateway.call("GET", path)
    assert [message["text"] for message in thread.body["messages"]] == ["<b>Where</b> is it?", "Tomorrow."]
    assert (thread.body["conversation"]["unread"], "secret" in thread.text, "sue" in thread.text) == (1, False, False)
    assert (await gateway.call("POST", f"{path}/read", json={"message_no": 3})).status == 204
    assert (await gateway.call("GET", "/v1/conversations")).body["items"][0]["unread"] == 0
    closing = {"version": version + 2, "status": "closed", "reason": "done"}
    assert (await _staff(gateway, "POST", f"/conversations/{id_}/status", json=closing)).status == 200
    assert (await gateway.call("POST", f"{path}/satisfaction", json={"score": 5, "text": "ok"})).status == 204
    again = await gateway.call("POST", f"{path}/satisfaction", json={"score": 1})
    assert (again.status, again.code) == (409, "satisfaction_not_requested")


async def test_conversation_of_another_customer_is_404(gateway: TestGateway) -> None:
    path = f"/v1/conversations/{await _open_question(gateway)}"
    for method, suffix, body in (
        ("GET", "", None),
        ("GET", "/events", None),
        ("POST", "/messages", {"text": "me too"}),
        ("POST", "/read", {"message_no": 1}),
        ("POST", "/satisfaction", {"score": 1}),
    ):
        answer = await gateway.call(
            method, path + suffix, user="mallory", json=body, headers={"Idempotency-Key": "k"} if body else {}
        )
        assert (answer.status, answer.code) == (404, "not_found"), suffix
    assert (await gateway.call("GET", path, user=None)).status == 401
    assert (await gateway.call("GET", "/v1/admin/conversations", roles=["warehouse"])).status == 403
    assert (await gateway.call("GET", "/v1/admin/conversations")).status == 401
    foreign = {"subject": "a", "text": "b", "order_id": str(uuid4())}
    answer = await gateway.call("POST", "/v1/conversations", json=foreign, headers={"Idempotency-Key": "k"})
    assert answer.status == 404


async def test_stream_brings_messages_and_hides_notes(gateway: TestGateway) -> None:
    id_ = await _open_question(gateway)
    path = f"{gateway.base}/v1/conversations/{id_}/events"
    received: list[dict[str, Any]] = []

    async def receive(until: int) -> None:
        headers = {**bearer(gateway.settings), "Last-Event-ID": str(received[-1]["seq"]) if received else "0"}
        async with gateway.client.get(path, headers=headers) as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            async for line in stream.content:
                if line.startswith(b"data: "):
                    received.append(json.loads(line[6:]))
                    if len(received) == until:
                        return

    task = asyncio.create_task(receive(3))
    note = await _staff(gateway, "POST", f"/conversations/{id_}/note", json={"version": 2, "text": "secret"})
    reply = {"version": note.body["conversation"]["version"], "text": "Tomorrow."}
    assert (await _staff(gateway, "POST", f"/conversations/{id_}/reply", json=reply)).status == 200
    async with asyncio.timeout(20):
        await task
    assert [(event["seq"], event["kind"]) for event in received] == [
        (1, "opened"),
        (2, "customer_message"),
        (4, "reply"),
    ]
    assert received[-1]["message"]["text"] == "Tomorrow."
    assert received[-1]["status"] == "waiting_customer"
    sent = await gateway.call(
        "POST", f"/v1/conversations/{id_}/messages", json={"text": "Ah"}, headers={"Idempotency-Key": "k"}
    )
    assert sent.status == 201
    async with asyncio.timeout(20):
        await receive(4)
    assert (received[-1]["seq"], received[-1]["message"]["text"]) == (5, "Ah")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"MZ\x90\x00 a program that says it is a picture", 422, "not_an_attachment"),
        (b"<html><script>alert(1)</script>", 422, "not_an_attachment"),
        (b"%PDF-1.7 without an end", 422, "not_an_attachment"),
        (b"", 422, "not_an_attachment"),
        (bomb(60_000), 422, "not_an_attachment"),
        (bytes(9_000_000), 413, "body_too_large"),
    ],
)
async def test_upload_that_is_no_picture_and_no_pdf_is_refused(
    gateway: TestGateway, content: bytes, status: int, code: str
) -> None:
    answer = await gateway.call("POST", "/v1/attachments", data=BytesIO(content), headers={"Content-Type": "image/png"})
    assert (answer.status, answer.code) == (status, code)


async def test_attachments_belong_to_their_conversation(gateway: TestGateway) -> None:
    uploads = [
        await gateway.call("POST", "/v1/attachments", user=user, data=BytesIO(content))
        for user, content in (("user", picture()), ("user", _PDF), ("mallory", picture()))
    ]
    assert [upload.status for upload in uploads] == [201, 201, 201]
    own, foreign = [upload.body["attachment_id"] for upload in uploads[:2]], uploads[2].body["attachment_id"]
    stolen = {"subject": "a", "text": "b", "attachments": [foreign]}
    answer = await gateway.call("POST", "/v1/conversations", json=stolen, headers={"Idempotency-Key": "k"})
    assert answer.status == 404
    id_ = await _open_question(gateway, attachments=own)
    thread = await gateway.call("GET", f"/v1/conversations/{id_}")
    types = [attachment["media_type"] for attachment in thread.body["messages"][0]["attachments"]]
    assert types == ["image/jpeg", "application/pdf"]
    for name, expected in (("user", 200), ("mallory", 404)):
        url = f"{gateway.base}/v1/attachments/{own[1]}"
        async with gateway.client.get(url, headers=bearer(gateway.settings, name)) as file:
            assert file.status == expected
            if expected == 200:
                assert await file.read() == _PDF
                assert file.headers["Content-Disposition"].startswith("attachment")
                assert file.headers["X-Content-Type-Options"] == "nosniff"
                assert "sandbox" in file.headers["Content-Security-Policy"]
    # A file of a note is of staff only; that of a reply is for the customer too.
    kept = [
        (await _staff(gateway, "POST", "/attachments", data=BytesIO(picture()))).body["attachment_id"] for _ in range(2)
    ]
    note = {"version": 2, "text": "look", "attachments": kept[:1]}
    assert (await _staff(gateway, "POST", f"/conversations/{id_}/note", json=note)).status == 200
    reply = {"version": 3, "text": "look", "attachments": kept[1:]}
    assert (await _staff(gateway, "POST", f"/conversations/{id_}/reply", json=reply)).status == 200
    statuses = []
    for attachment_id in kept:
        url = f"{gateway.base}/v1/attachments/{attachment_id}"
        async with gateway.client.get(url, headers=bearer(gateway.settings)) as file:
            statuses.append(file.status)
    assert statuses == [404, 200]
    url = f"{gateway.base}/v1/admin/attachments/{kept[0]}"
    async with gateway.client.get(url, headers=bearer(gateway.settings, "max", roles=["support"])) as file:
        assert file.status == 200


async def test_unsent_attachments_are_bounded(gateway: TestGateway) -> None:
    limit = gateway.settings.conversations.unsent_attachments
    answers = [await gateway.call("POST", "/v1/attachments", data=BytesIO(picture())) for _ in range(limit + 1)]
    assert [answer.status for answer in answers] == [201] * limit + [409]
    assert answers[-1].code == "too_many_attachments"


async def test_staff_set_up_teams_templates_views_and_change_many(gateway: TestGateway) -> None:
    id_ = await _open_question(gateway)
    team = await _staff(gateway, "PUT", "/support-teams/claims", json={"name": "Claims", "members": ["sue"]})
    assert (team.status, team.body["members"]) == (200, ["sue"])
    template = "/reply-templates/sorry/en"
    unknown = await _staff(gateway, "PUT", template, json={"title": "Sorry", "text": "{nothing}"})
    assert (unknown.status, unknown.code) == (422, "placeholder_unknown")
    stored = await _staff(gateway, "PUT", template, json={"title": "Sorry", "text": "Dear {customer}, {amount}"})
    assert stored.status == 200, stored.text
    missing = await _staff(gateway, "GET", f"/conversations/{id_}/replies/sorry")
    assert (missing.status, missing.code) == (409, "placeholder_missing")
    assert len((await _staff(gateway, "GET", "/reply-templates?language=en")).body["items"]) == 1
    view = {"name": "Fires", "filter": {"tag": "fire"}, "is_shared": True}
    saved = await _staff(gateway, "POST", "/conversation-views", json=view)
    assert saved.status == 201, saved.text
    bulk = {"filter": {"statuses": ["new"]}, "action": {"add_tag": "fire"}}
    preview = await _staff(gateway, "POST", "/conversations/bulk", json=bulk)
    assert (preview.status, preview.body["count"]) == (200, 1)
    path = f"/conversations/bulk/{preview.body['preview_id']}/apply"
    assert (await _staff(gateway, "POST", path, json={"count": 2})).code == "preview_mismatch"
    assert (await _staff(gateway, "POST", path, json={"count": 1})).body == {"changed": 1, "refused": []}
    view_id = saved.body["view_id"]
    listed = await _staff(gateway, "GET", f"/conversations?view_id={view_id}", user="max")
    assert [each["conversation_id"] for each in listed.body["items"]] == [id_]
    narrowed = await _staff(gateway, "GET", f"/conversations?view_id={view_id}&kind=return&is_overdue=true", user="max")
    assert narrowed.body["items"] == []
    version = listed.body["items"][0]["version"]
    change = {"version": version, "team_id": "claims", "priority": 1}
    changed = await _staff(gateway, "POST", f"/conversations/{id_}/change", json=change)
    assert (changed.status, changed.body["conversation"]["team_id"]) == (200, "claims")
    assert (await _staff(gateway, "DELETE", "/support-teams/claims")).code == "forbidden"
    assert (await _staff(gateway, "DELETE", "/support-teams/claims", role="support_lead")).status == 409
    assert (await _staff(gateway, "DELETE", template)).status == 204
    assert (await _staff(gateway, "DELETE", f"/conversation-views/{view_id}")).status == 204
    split = {"version": version + 1, "message_nos": [1], "subject": "The rest"}
    parted = await _staff(gateway, "POST", f"/conversations/{id_}/split", json=split)
    assert (parted.status, parted.body["conversation"]["subject"]) == (201, "The rest")
    parted_id, parted_version = (parted.body["conversation"][name] for name in ("conversation_id", "version"))
    merge = {"version": parted_version, "into": id_, "into_version": version + 2}
    merged = await _staff(gateway, "POST", f"/conversations/{parted_id}/merge", json=merge)
    assert merged.status == 200, merged.text
    late = {"version": parted_version + 1, "text": "Hello"}
    refused = await _staff(gateway, "POST", f"/conversations/{parted_id}/reply", json=late)
    assert (refused.code, refused.body["merged_into"]) == ("conversation_merged", id_)
