"""Write ``docs/reference/cli.md`` from the commands' own help: ``python docs/command_reference.py``."""

from pathlib import Path

import click

from batchcls.cli import main

PAGE = Path(__file__).parent / "reference" / "cli.md"
_WIDTH = 96
_INTRODUCTION = """\
# Commands

What each command prints with `--help`. This page is written by `python docs/command_reference.py`, and a test holds it
equal to the commands. The guides show the commands at work: [run](../guides/run.md), [train](../guides/train.md),
[build](../guides/build.md), [evaluate and report](../guides/evaluate.md), [explain](../guides/explain.md). What a
command's exit code says stands in [Exit codes](exit-codes.md).
"""


def reference() -> str:
    """The whole page, in Markdown."""
    with click.Context(main, info_name="batchcls", help_option_names=main.context_settings["help_option_names"]) as top:
        commands = {name: main.get_command(top, name) for name in main.list_commands(top)}
        sections = [_section("batchcls", main, None)]
        sections += [_section(name, command, top) for name, command in commands.items() if command]
    return "\n".join([_INTRODUCTION, *sections])


def _section(name: str, command: click.Command, parent: click.Context | None) -> str:
    names = main.context_settings["help_option_names"]
    with click.Context(
        command,
        parent,
        name,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=names,
    ) as context:
        return f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
