"""Quizzes as JSON files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from commerce.kernel.types import explain_mismatch
from commerce.training.errors import UnreadableQuiz
from commerce.training.model import QuizFile

_MAX_BYTES = 4 * 1024 * 1024
_decoder = msgspec.json.Decoder(QuizFile)


def read_quiz(file: Path) -> QuizFile:
    """Read a quiz. Raises `UnreadableQuiz`, which names the place."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise UnreadableQuiz(f"cannot read {file.name}: it has more than {_MAX_BYTES} bytes")
        return _decoder.decode(file.read_bytes())
    except OSError as error:
        raise UnreadableQuiz(f"cannot read {file.name}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise UnreadableQuiz(f"cannot read {file.name}: {explain_mismatch(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableQuiz(f"cannot read {file.name}: it is not JSON: {error}") from None
