"""Jobs of conversations: one that stays resolved is closed in time. Its customer is asked then, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from commerce.conversations import store
from commerce.conversations.conversation_changes import change_conversation
from commerce.conversations.conversation_policy import ConversationPolicy
from commerce.conversations.model import CONVERSATIONS
from commerce.jobs.model import Job, JobHandler, JobResult, finished, postponed, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database

ACTOR = "aftersales_worker"


class ConversationJobs:
    """The queue `conversations`. A job that fails `max_attempts` times is parked."""

    def __init__(
        self, db: Database, clock: Clock, policy: ConversationPolicy, retry_policy: RetryPolicy, max_attempts: int
    ) -> None:
        self._db = db
        self._clock = clock
        self._policy = policy
        handlers = {"conversation.close": JobHandler(self._close, max_attempts=max_attempts)}
        self.queue = JobQueue(CONVERSATIONS, handlers, db, clock, retry_policy)

    async def _close(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        """Close a conversation that was resolved `close_after_days` ago, or come again then."""
        [job] = jobs
        async with self._db.transaction() as connection:
            conversation, now = await store.lock(connection, job.subject), from_ms(self._clock.now_ms())
            if conversation is None or conversation.status != "resolved" or conversation.resolved_at is None:
                return [finished("unchanged")]
            due_at = conversation.resolved_at + timedelta(days=self._policy.close_after_days)
            if now < due_at:
                return [postponed("waiting", due_at)]
            await change_conversation(connection, conversation, now, ACTOR, "closed", status="closed")
        return [written("done")]
