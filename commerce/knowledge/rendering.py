"""Safe HTML of articles: Markdown without HTML, then cleaned of all that is not on a short list."""

from __future__ import annotations

from functools import lru_cache
from html import unescape
from typing import Any

from commerce.kernel.optional import require_extra

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "strong", "em", "s"),
    *("code", "pre", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
_SCHEMES = {"https", "http", "mailto", "tel"}


@lru_cache(maxsize=1)
def _load_renderer() -> Any:
    require_extra("render an article", "knowledge", "markdown_it", "nh3")
    from markdown_it import MarkdownIt  # noqa: PLC0415  # only processes that show articles need it

    # `html` off: tags are shown as text. Pictures are left out, because their addresses would tell of every reader.
    renderer = MarkdownIt("commonmark", {"html": False, "maxNesting": 20})
    renderer.enable(["table", "strikethrough"]).disable("image")
    renderer.render("text")  # it compiles its rules with the first text: afterwards several threads may use it
    return renderer


@lru_cache(maxsize=512)
def render(markdown: str) -> str:
    """Return the HTML of a text. The last ones are kept, since most readers read the same."""
    renderer = _load_renderer()
    import nh3  # noqa: PLC0415

    return nh3.clean(
        renderer.render(markdown),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="noopener nofollow",
    )


@lru_cache(maxsize=20_000)
def excerpt(markdown: str, max_chars: int = 160) -> str:
    """Return the beginning of a text as one line of plain text."""
    import nh3  # noqa: PLC0415

    html = _load_renderer().render(markdown[: 10 * max_chars])
    text = " ".join(unescape(nh3.clean(html.replace("<", " <"), tags=set())).split())
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
