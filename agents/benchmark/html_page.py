"""The frame of every HTML report: one file with its styles inside, for desktop, phone and print."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources


def html_page(
    title: str, words: Sequence[str], body: str, style_packages: Sequence[str] = (), more_style: str = ""
) -> str:
    """A report as text.

    Args:
        title: of the page, and its heading.
        words: paragraphs of the summary, as HTML.
        body: what follows them, as HTML.
        style_packages: packages whose ``report.css`` comes after that of this one.
        more_style: CSS that comes after those.
    """
    style = "".join(
        resources.files(package).joinpath("report.css").read_text(encoding="utf-8")
        for package in ("agents.benchmark", *style_packages)
    )
    style += more_style
    paragraphs = "".join(f"<p>{paragraph}</p>\n" for paragraph in words)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<section class="words">
{paragraphs}</section>
{body}
</main>
</body>
</html>
"""
