"""What every page is around its sections: one file that fetches nothing, with at most one script, known by its hash."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from analysis.report.style import STYLE


def html_page(
    title: str,
    links: str,
    main: str,
    *,
    style: str = STYLE,
    data: str = "",
    script: str = "",
    said: str = "Sections",
) -> str:
    """The whole page; `links`, `main` and `data` (elements that `script` reads) are HTML, `said` is what the links lead to."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
        script = f"<script>{script}</script>\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><nav aria-label="{said}">{links}</nav></header>
<main>{main}</main>
{data}{script}</body>
</html>
"""
