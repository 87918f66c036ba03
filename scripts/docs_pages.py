"""What `mkdocs build` adds to the pages in docs/: the options of every command, pages that the navigation leaves out, and
classes on short code and on options, which docs/stylesheets/pages.css keeps in one piece.

A hook of mkdocs (`hooks` in mkdocs.yml). Options are read from the program itself, so the page cannot differ from `--help`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from prompttransfer.cli import app

EVERY_COMMAND = "<!-- every command -->"
"""Stands in a page where all commands are to be listed."""


def on_config(config: Any) -> Any:
    """Put the pages that the navigation does not name behind it."""
    named = set(_named(config.nav))
    pages = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    if rest := [page for page in pages if page not in named]:
        config.nav.append({"More": rest})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its list of commands."""
    if EVERY_COMMAND not in markdown:
        return markdown
    sections = (section(name, command) for name, command in commands(get_command(app)))
    return markdown.replace(EVERY_COMMAND, "\n\n".join(sections))


def on_page_content(content: str, **_: Any) -> str:
    """The page, HTML, with what stays in one piece marked: code that is short enough for that, and options of commands."""
    content = re.sub(rf"<code>([^<\n]{{1,{SHORT}}})</code>", r'<code class="short">\1</code>', content)
    return re.sub(
        r"<code>.*?</code>",
        lambda code: OPTION.sub(r"<span class=option>\1</span>", code[0]),
        content,
        flags=re.S,
    )


OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")
SHORT = 24
"""Characters of code that fit into a line on a phone, and into a column of a table."""


def _named(entries: Any) -> Iterator[str]:
    """The pages that a navigation, or a part of it, names."""
    for entry in entries:
        for inner in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [inner] if isinstance(inner, str) else _named(inner)


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb with its name, as `project fit`; groups are passed over."""
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
        return
    for part, inner in below.items():
        yield from commands(inner, f"{name} {part}".strip())


def section(name: str, command: Any) -> str:
    """A verb with its arguments and options, in Markdown."""
    given = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(
        [f"prompttransfer {name}", *(p.name.upper() + " ..." * (p.nargs != 1) for p in given), "[OPTIONS]"]
    )
    lines = [f"## {name}", "", f"`{usage}`", "", html.escape(command.help or "", quote=False), ""]
    return "\n".join([*lines, *(entry(parameter) for parameter in (*given, *options))])


def entry(parameter: Any) -> str:
    """One argument or option as an item of a list."""
    written = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        written = [parameter.name.upper()]
    said = html.escape(getattr(parameter, "help", None) or "", quote=False)
    default = parameter.default
    if parameter.required:
        said += " Required."
    elif isinstance(default, str | int | float | Path) and not isinstance(default, bool):
        said += f" Default: `{default}`."
    return f"- {', '.join(f'`{text}`' for text in written)}: {said}"
