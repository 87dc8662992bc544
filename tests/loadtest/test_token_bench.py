"""The part `tokens` of `make bench` measures each algorithm that tokens may have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from config.auth import AuthKey
from loadtest.bench import report
from loadtest.bench.tokens import TokenFigures, TokenTimes, measure_tokens


def test_tokens_of_each_algorithm_are_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tokens = TokenFigures()
    measure_tokens(tokens, repeats=2, tokens=3)
    assert set(tokens.times) == set(get_args(AuthKey.model_fields["algorithm"].annotation))
    assert all(len(times) == 2 for times in tokens.times.values())
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={}, tokens=tokens)
    report.show(figures)
    assert "HS256_pyjwt_vs_first_check" in capsys.readouterr().out
    report.write(figures, tmp_path)
    assert msgspec.json.decode((tmp_path / "latest.json").read_bytes())["tokens"]["ratios"] == tokens.ratios


def test_ratios_are_medians_of_neighbours() -> None:
    tokens = TokenFigures(times={"HS256": [TokenTimes(4, 40, 2), TokenTimes(5, 45, 1), TokenTimes(4, 48, 2)]})
    assert tokens.compute_ratios() == {"HS256_pyjwt_vs_first_check": 10, "HS256_vs_signature": 2}
