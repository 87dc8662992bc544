"""Training: what a member of staff must read and pass, quizzes, and who has passed what."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.moments import Day
from commerce.kernel.paging import Page
from commerce.knowledge.model import ArticleId
from commerce.training.model import (
    Acknowledgement,
    AnswersInput,
    Attempt,
    AttemptInput,
    Certificate,
    CertificateFilter,
    Person,
    Quiz,
    QuizCode,
    QuizInput,
    ReadingInput,
    RequiredReading,
    RoleName,
    TrainingItem,
)
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response


async def list_own_training(call: Call) -> web.Response:
    """List what you must read and pass by your roles, with what is not complete first. There is one page.

    An article is complete when its published version is acknowledged in one language, and each of its quizzes has a
    valid certificate that no newer version has outdated.
    """
    identity = call.identity
    items = await call.services.articles.training.list_items(identity.subject, identity.roles)
    return json_response(Page(items, None))


async def acknowledge_article(call: Call) -> web.Response:
    """Confirm that you have read the published version of an article. A repeat changes nothing."""
    await call.services.articles.training.acknowledge(call.identity.subject, call.parameters["article_id"], call.body)
    return web.Response(status=204)


async def begin_quiz_attempt(call: Call) -> web.Response:
    """Begin an attempt of a quiz, or read the open one: a person has one at most.

    The article must be acknowledged first. The answer has neither the right options nor their number.
    """
    code, identity = call.parameters["code"], call.identity
    attempt = await call.services.articles.attempts.begin(identity.subject, identity.roles, code, call.body.language)
    return json_response(attempt, 201, {"Location": f"{_PATH}/attempts/{attempt.attempt_id}"})


async def show_quiz_attempt(call: Call) -> web.Response:
    """Read an attempt of yours: its questions while it is open, its result afterwards."""
    attempts = call.services.articles.attempts
    return json_response(await attempts.get(call.identity.subject, call.parameters["attempt_id"]))


async def submit_quiz_attempt(call: Call) -> web.Response:
    """Submit the answers and read the result. Whatever is submitted again, the first result stays.

    `answers` has the numbers of the chosen options for each question, in the order shown; `[]` leaves one out.
    """
    attempts = call.services.articles.attempts
    attempt_id = call.parameters["attempt_id"]
    return json_response(await attempts.submit(call.identity.subject, attempt_id, call.body.answers))


async def list_required_readings(call: Call) -> web.Response:
    """List articles that roles must read. There is one page."""
    return json_response(Page(await call.services.articles.training.list_readings(), None))


async def put_required_reading(call: Call) -> web.Response:
    """Require an article of roles. Without roles nobody must read it any more."""
    article_id = call.parameters["article_id"]
    await call.services.articles.training.put_reading(article_id, call.body.roles, call.staff_actor)
    return web.Response(status=204)


async def list_quizzes(call: Call) -> web.Response:
    """List quizzes without their questions. There is one page.

    `missing` has languages whose published version has no questions yet: put the quiz again.
    """
    return json_response(Page(await call.services.articles.training.list_quizzes(), None))


async def put_quiz(call: Call) -> web.Response:
    """Create or change a quiz. Its questions are about the versions that are published now.

    A repeat changes nothing.
    """
    quiz = await call.services.articles.training.put_quiz(call.parameters["code"], call.body, call.staff_actor)
    return json_response(quiz)


async def list_certificates(call: Call) -> web.Response:
    """List who has passed what, in the order in which the attempts began."""
    parameters = call.parameters
    wanted = CertificateFilter(
        person=parameters["person"],
        role=parameters["role"],
        code=parameters["quiz"],
        expires_before=parameters["expires_before"],
        only_valid=parameters["valid"] is True,
    )
    training = call.services.articles.training
    return json_response(await training.list_certificates(wanted, parameters["cursor"], page_size(call)))


_PATH = "/v1/admin/training"
_ARTICLE = Parameter(name="article_id", location="path", type=ArticleId, description="the article's name")
_CODE = Parameter(name="code", location="path", type=QuizCode, description="the quiz's name")
_ATTEMPT = Parameter(name="attempt_id", location="path", type=UUID, description="the attempt's id")
_is_true = Annotated[bool, msgspec.Meta(description="true or false")]
_own = partial(Operation, tag="staff: training", access="support_read", also_for=("catalog", "sales", "warehouse"))
_lead = partial(Operation, tag="staff: training", access="support_lead")

ADMIN = [
    _own(
        method="GET",
        path=_PATH,
        handler=list_own_training,
        summary="List what you must read and pass",
        answers={200: ("the list", Page[TrainingItem])},
        problems=(503,),
    ),
    _own(
        method="POST",
        path=f"{_PATH}/articles/{{article_id}}/acknowledge",
        handler=acknowledge_article,
        summary="Acknowledge an article",
        answers={204: ("the version is acknowledged", None)},
        problems=(409, 503),
        parameters=(_ARTICLE,),
        body=Acknowledgement,
        is_one_transaction=True,
    ),
    _own(
        method="POST",
        path=f"{_PATH}/quizzes/{{code}}/attempts",
        handler=begin_quiz_attempt,
        summary="Begin an attempt of a quiz",
        answers={201: ("the open attempt", Attempt)},
        problems=(404, 409, 503),
        parameters=(_CODE,),
        body=AttemptInput,
        is_one_transaction=True,
    ),
    _own(
        method="GET",
        path=f"{_PATH}/attempts/{{attempt_id}}",
        handler=show_quiz_attempt,
        summary="Read an attempt of yours",
        answers={200: ("the attempt", Attempt)},
        problems=(404, 503),
        parameters=(_ATTEMPT,),
    ),
    _own(
        method="POST",
        path=f"{_PATH}/attempts/{{attempt_id}}/answers",
        handler=submit_quiz_attempt,
        summary="Submit the answers of an attempt",
        answers={200: ("the result", Attempt)},
        problems=(404, 409, 503),
        parameters=(_ATTEMPT,),
        body=AnswersInput,
        is_one_transaction=True,
    ),
    _lead(
        method="GET",
        path=f"{_PATH}/readings",
        handler=list_required_readings,
        summary="List required readings",
        answers={200: ("the list", Page[RequiredReading])},
        problems=(503,),
    ),
    _lead(
        method="PUT",
        path=f"{_PATH}/readings/{{article_id}}",
        handler=put_required_reading,
        summary="Require an article of roles",
        answers={204: ("the roles are stored", None)},
        problems=(404, 503),
        parameters=(_ARTICLE,),
        body=ReadingInput,
    ),
    _lead(
        method="GET",
        path=f"{_PATH}/quizzes",
        handler=list_quizzes,
        summary="List quizzes",
        answers={200: ("the list", Page[Quiz])},
        problems=(503,),
    ),
    _lead(
        method="PUT",
        path=f"{_PATH}/quizzes/{{code}}",
        handler=put_quiz,
        summary="Put a quiz",
        answers={200: ("the quiz", Quiz)},
        problems=(404, 409, 503),
        parameters=(_CODE,),
        body=QuizInput,
    ),
    _lead(
        method="GET",
        path=f"{_PATH}/certificates",
        handler=list_certificates,
        summary="List certificates",
        answers={200: ("a page", Page[Certificate])},
        problems=(404, 503),
        parameters=(
            Parameter(name="person", location="query", type=Person, description="only those of a person"),
            Parameter(name="role", location="query", type=RoleName, description="only of persons who had this role"),
            Parameter(name="quiz", location="query", type=QuizCode, description="only those of a quiz"),
            Parameter(
                name="expires_before", location="query", type=Day, description="only those that end before this day"
            ),
            Parameter(name="valid", location="query", type=_is_true, description="only those that are valid now"),
            cursor_parameter(UUID),
            LIMIT,
        ),
    ),
]
