"""HTML of articles: Markdown is shown, and nothing that runs survives."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.knowledge import rendering
from commerce.knowledge.rendering import excerpt, render

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox)",
    "[x]( \x01javascript:alert(1))",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    '[x](https://a.example "onmouseover=alert(1)")',
    '[x](https://a.example/"onclick="alert(1))',
    "<iframe src=//evil.example></iframe>",
    "<style>*{background:url(//evil.example)}</style>",
    "<form action=//evil.example><input></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "```html\n<script>alert(1)</script>\n```",
    "`<script>`",
    '| a |\n|-|\n| <b onclick="x()"> |',
    "[x]: javascript:alert(1)\n\n[x]",
    "<!-- <script> -->",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]
TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "strong", "em", "s", "code"),
    *("pre", "a", "table", "thead", "tbody", "tr", "th", "td"),
}


class _Checker(HTMLParser):
    """Fails for a tag, an attribute or a scheme that articles do not have."""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attributes:
            assert name in ("href", "title", "rel", "start"), name
            if name == "href":
                scheme, colon, _ = (value or "").partition(":")
                assert not colon or "/" in scheme or scheme.lower() in ("https", "http", "mailto", "tel"), value

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)


def check_safe(html: str) -> None:
    checker = _Checker(convert_charrefs=True)
    checker.feed(html)
    checker.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_leaves_no_script(attack: str) -> None:
    check_safe(render(attack))
    check_safe(render(f"text {attack} text\n\n- {attack}\n> {attack}"))


@given(
    st.lists(
        st.sampled_from([*ATTACKS, "<", ">", '"', "'", "\n", "\n\n", "[", "](", ")", "`", "|", " ", "*"]), max_size=12
    )
)
def test_mixture_of_attacks_leaves_no_script(parts: list[str]) -> None:
    check_safe(render("".join(parts)))


def test_markdown_is_rendered() -> None:
    html = render("# Title\n\n**bold** [help](https://a.example/x?a=1&b=2)\n\n1. one\n\n| a |\n|---|\n| 1 |\n\n~~old~~")
    for part in ("<h1>Title</h1>", "<strong>bold</strong>", "<ol>", "<table>", "<s>old</s>"):
        assert part in html
    assert '<a href="https://a.example/x?a=1&amp;b=2" rel="noopener nofollow">help</a>' in html


def test_excerpt_is_one_line_of_plain_text() -> None:
    assert excerpt("# Title\n\nyou & <b>me</b>, **bold**\n\n- one\n- two") == "Title you & <b>me</b>, bold one two"
    assert excerpt("长" * 500) == "长" * 159 + "…"


def test_renderer_is_ready_for_several_threads() -> None:
    """A rule set that is not compiled yet would be seen half compiled by a second thread."""
    renderer = rendering._load_renderer.__wrapped__()
    rulers = (renderer.core.ruler, renderer.block.ruler, renderer.inline.ruler, renderer.inline.ruler2)
    assert all(ruler.__cache__ is not None for ruler in rulers)
