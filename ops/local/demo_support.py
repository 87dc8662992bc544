"""Demonstration of support: articles, quizzes, teams, templates of replies, rules."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from commerce.aftersales.model import CaseKind
from commerce.case_rules.model import (
    CaseRule,
    RuleActivation,
    RuleBudgetInput,
    RuleConditions,
    RuleOutcome,
    RuleSetInput,
)
from commerce.case_rules.service import CaseRules
from commerce.conversations.support_model import TeamInput, TemplateInput
from commerce.kernel.errors import NotReady
from commerce.kernel.optional import require_extra
from commerce.knowledge.article_files import import_articles, read_folder
from commerce.knowledge.model import VersionStep
from commerce.text_search.model import Language
from commerce.training.quiz_files import read_quiz
from ops.services import CliServices

_AUTHOR, _REVIEWER = "staff demo-author", "staff demo-reviewer"
_FOLDER = Path(__file__).parent
_READINGS = {"staff-lost-claims": ["support"], "staff-decision-limits": ["support", "support_lead"]}
_TEAMS = {
    "claims": TeamInput(name="Claims", members=["sue", "max"]),
    "returns": TeamInput(name="Returns", members=["li"]),
}
_TEMPLATES: dict[tuple[str, Language], TemplateInput] = {
    ("on-its-way", "en"): TemplateInput(title="On its way", text="Your order {order_id} is on its way. {staff}"),
    ("on-its-way", "zh"): TemplateInput(title="已发出", text="您的订单 {order_id} 已经发出,请留意物流。{staff}"),
    ("refunded", "en"): TemplateInput(title="Refunded", text="{amount} of your request {case_id} are refunded."),
    ("refunded", "zh"): TemplateInput(title="已退款", text="您的申请 {case_id} 已退款 {amount}。"),
}
_RULES = (
    CaseRule(
        outcome=RuleOutcome.REFUND_WITHOUT_RETURN,
        reason="it costs less than its way back: keep it",
        conditions=RuleConditions(kinds=[CaseKind.REFUND_ONLY], max_amount={"CNY": 2_000}, max_cases=5),
    ),
    CaseRule(outcome=RuleOutcome.BY_HAND, reason="a person decides"),
)
_BUDGET = RuleBudgetInput(max_amount=100_000, max_cases=100, reason="demonstration")


def settings_text() -> str:
    """Return the settings of the demonstration as TOML: acting on claims needs a certificate."""
    return '[support.certificates]\nclaims = "claims-basics"\n'


async def create_demo_support(shop: CliServices) -> None:
    """Create what support begins with, all or nothing, unless the shop has articles of its own.

    Creates nothing in an installation without the extra `knowledge`."""
    try:
        require_extra("publish articles", "knowledge", "rjieba", "markdown_it", "nh3")
    except NotReady:
        return  # everything else works
    async with shop.db.joined_transaction():
        if not (await shop.knowledge.list_articles(None, 1)).items:
            await _create(shop)


async def _create(shop: CliServices) -> None:
    files, refused = read_folder(_FOLDER / "articles")
    imported = await import_articles(shop.knowledge, files, _AUTHOR, is_dry_run=False)
    refused += [file for file in imported if file.effect == "refused"]
    assert not refused, refused
    for file in files:
        await shop.knowledge.publish(file.article_id, VersionStep(language=file.language, version=1), _REVIEWER)
    for quiz_file in sorted((_FOLDER / "quizzes").glob("*.json")):
        content = read_quiz(quiz_file)
        await shop.training.put_quiz(content.code, content.quiz, _AUTHOR)
    for article_id, roles in _READINGS.items():
        await shop.training.put_reading(article_id, roles, _AUTHOR)
    for team_id, team in _TEAMS.items():
        await shop.conversations.teams.put(team_id, team, _AUTHOR)
    for (template_id, language), template in _TEMPLATES.items():
        await shop.conversations.templates.put(template_id, language, template, _AUTHOR)
    await _activate_rules(CaseRules(shop.db, shop.clock, ZoneInfo(shop.settings.shipping.timezone)))


async def _activate_rules(rules: CaseRules) -> None:
    stored = await rules.add_set(RuleSetInput(rules=list(_RULES), reason="demonstration"), _AUTHOR)
    await rules.put_budget("CNY", _BUDGET, _AUTHOR)
    await rules.activate(RuleActivation(version=stored.version, reason="demonstration"), _AUTHOR)
