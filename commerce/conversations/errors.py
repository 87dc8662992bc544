"""Problems of conversations, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchConversation(NotFound):
    title = "There is no such conversation, or it is not yours"


class NoSuchAttachment(NotFound):
    title = "There is no such attachment, or it is not yours"


class NoSuchTeam(NotFound):
    title = "There is no such team"


class NoSuchTemplate(NotFound):
    title = "There is no such template of replies"


class NoSuchView(NotFound):
    title = "There is no such view, or it is not yours"


class NoSuchPreview(NotFound):
    title = "There is no such preview, or it is not yours"


class ConversationVersionConflict(Conflict):
    """Somebody changed the conversation since it was read. `version` is the present one."""

    code = "version_conflict"
    title = "The conversation has changed since you read it"


class ConversationStatusConflict(Conflict):
    """The conversation's status does not allow the change."""

    code = "conversation_status"
    title = "The conversation's status does not allow this"


class ConversationMerged(Conflict):
    """The messages are in another conversation: `merged_into`."""

    code = "conversation_merged"
    title = "The conversation was merged into another one"


class CannotMerge(Conflict):
    code = "cannot_merge"
    title = "These conversations cannot be merged"


class TooManyQuestions(Conflict):
    code = "too_many_questions"
    title = "As many questions are open as a customer can have"


class TooManyMessages(Conflict):
    code = "too_many_messages"
    title = "The conversation takes no more messages now"


class TooManyAttachments(Conflict):
    code = "too_many_attachments"
    title = "As many attachments wait to be sent as you can have"


class NotAnAttachment(Invalid):
    code = "not_an_attachment"
    title = "The upload is no picture and no PDF file"


class SatisfactionNotRequested(Conflict):
    code = "satisfaction_not_requested"
    title = "This conversation does not ask how satisfied you are"


class PlaceholderUnknown(Invalid):
    code = "placeholder_unknown"
    title = "The template has a placeholder that nothing fills"


class PlaceholderMissing(Conflict):
    code = "placeholder_missing"
    title = "This conversation has no value for a placeholder"


class TooManyToChange(Conflict):
    code = "too_many_to_change"
    title = "The filter finds more conversations than one change may have"


class PreviewMismatch(Conflict):
    code = "preview_mismatch"
    title = "The preview has shown another number of conversations"
