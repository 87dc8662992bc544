"""`floodgate knowledge` as editors have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.commands import Command, make_command
from tests.support.processes import Processes

HEAD = {"title": "退货的运费谁来出", "audience": "public", "owner": "support-lead", "review_by": "2027-06-30"}


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    run = make_command(Processes(settings, tmp_path).environment())

    async def run_knowledge(*arguments: object, **variables: str) -> tuple[int, str]:
        status, output = await run("knowledge", *arguments, **variables)
        return status, " ".join(output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run_knowledge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, body: str = "质量问题由商家承担。", **head: str) -> None:
    lines = [f"{key}: {value}" for key, value in {**HEAD, **head}.items()]
    (folder / name).write_text("\n".join(["---", *lines, "---", "", body, ""]), encoding="utf-8")


async def test_articles_are_imported_published_and_found(floodgate: Command, folder: Path) -> None:
    write(folder, "freight.zh.md", words="邮费;寄回运费", reasons="defective not_received")
    write(folder, "freight.en.md", "The shop pays.", title="Who pays", reasons="defective not_received")
    added = (0, "2 files: 2 added, 0 changed, 0 unchanged, 0 refused")
    assert await floodgate("import", folder, "--author", "ann", "--check") == added
    assert (await floodgate("list"))[1].startswith("there is no such article")
    assert await floodgate("import", folder, "--author", "ann") == added
    unchanged = (0, "2 files: 0 added, 0 changed, 2 unchanged, 0 refused")
    assert await floodgate("import", folder, "--author", "ann") == unchanged
    assert await floodgate("search", "运费") == (0, "nothing is found")
    status, output = await floodgate("publish", "--all")
    assert (status, output) == (0, "freight, zh, version 1: published freight, en, version 1: published")
    assert await floodgate("publish", "--all") == (0, "nothing to do: no version is in_review")
    status, output = await floodgate("search", "邮费", "--json")
    assert [article["article_id"] for article in json.loads(output)] == ["freight"]
    assert "freight public support-lead 2027-06-30 zh 1 published, en 1 published" in (await floodgate("list"))[1]
    assert "质量问题由商家承担。" in (await floodgate("show", "freight", "--language", "zh", "--version", 1))[1]
    article = json.loads((await floodgate("show", "freight", "--json"))[1])
    assert article["terms"]["reasons"] == ["defective", "not_received"]
    write(folder, "freight.zh.md", "由您承担。", reasons="defective not_received")
    changed = (0, "2 files: 0 added, 1 changed, 1 unchanged, 0 refused")
    assert await floodgate("import", folder) == changed
    status, output = await floodgate("publish", "freight")
    assert status == 1
    assert "you have written it; ask another person" in output
    assert await floodgate("retire", "freight", "--language", "zh") == (0, "freight, zh, version 1: retired")
    assert await floodgate("missed") == (0, "every search has found something")
    assert (await floodgate("search", "x" * 501))[0] == 1


async def test_one_that_cannot_be_published_does_not_keep_the_others(floodgate: Command, folder: Path) -> None:
    write(folder, "freight.zh.md")
    await floodgate("import", folder)
    (folder / "freight.zh.md").unlink()
    write(folder, "refund.zh.md")
    await floodgate("import", folder, "--author", "ann")
    status, output = await floodgate("publish", "--all")
    assert status == 1
    assert "refund, zh, version 1: published" in output
    assert "freight zh (cannot publish" in output
    assert "you have written it; ask another person" in output
    assert "the others are done" in output
    assert "zh 1 published" in (await floodgate("list", "--status", "published"))[1]


async def test_wrong_files_are_refused_and_the_others_imported(floodgate: Command, folder: Path) -> None:
    write(folder, "good.zh.md")
    write(folder, "Bad Name.zh.md")
    write(folder, "audience.zh.md", audience="everybody")
    write(folder, "key.zh.md", colour="red")
    write(folder, "differs.zh.md")
    write(folder, "differs.en.md", owner="other")
    write(folder, "empty.zh.md", " ")
    write(folder, "suggest.zh.md")
    (folder / "headless.zh.md").write_text("text", encoding="utf-8")
    (folder / "endless.zh.md").write_text("---\ntitle: x\n", encoding="utf-8")
    (folder / "lacks.zh.md").write_text("---\ntitle: x\n---\ntext", encoding="utf-8")
    (folder / "encoded.zh.md").write_bytes("标题".encode("gb18030"))
    status, output = await floodgate("import", folder)
    assert status == 2
    assert "12 files: 2 added, 0 changed, 0 unchanged, 10 refused" in output
    for reason in (
        "Bad Name.zh.md: its name is not",
        "audience.zh.md: ",
        "key.zh.md: line 6 is not `key: value`",
        "differs.zh.md: audience, owner, review_by and codes differ",
        "headless.zh.md: line 1",
        "endless.zh.md: the second line of `---` is missing",
        "lacks.zh.md: it lacks audience, owner, review_by",
        "encoded.zh.md: it is not UTF-8",
        "suggest.zh.md: 'suggest' is part of another path",
        "empty.zh.md: ",
    ):
        assert reason in output
    assert "nothing" not in (await floodgate("import", folder / "none"))[1]


async def test_search_is_evaluated_with_a_limit(floodgate: Command, folder: Path, tmp_path: Path) -> None:
    write(folder, "freight.zh.md")
    write(folder, "timing.zh.md", "银行卡一到五天。", title="退款什么时候到账")
    await floodgate("import", folder, "--author", "ann")
    await floodgate("publish", "--all")
    file = tmp_path / "questions.csv"
    file.write_text(
        "question,language,articles\n运费谁出,zh,freight\n几天到账,zh,timing\n几天到账,zh,freight\n", "utf-8"
    )
    status, output = await floodgate("evaluate", file, "--json", "--min-mrr", "0.5")
    measures = json.loads(output)
    assert (status, measures["total"]["questions"], measures["total"]["without_hit"]) == (0, 3, 0)
    assert 2 / 3 <= measures["total"]["mrr"] < 1
    assert [missed["wanted"] for missed in measures["missed"]] == [["freight"]]
    status, output = await floodgate("evaluate", file, "--min-mrr", "1")
    assert status == 1
    assert "below 1" in output
    assert "questions number nDCG@10 MRR recall@5 nothing found" in output
    file.write_text("question\n", "utf-8")
    assert (await floodgate("evaluate", file))[0] == 1
