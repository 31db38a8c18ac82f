"""The pages are true: links lead somewhere, commands parse, and named code exists."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from unpool.cli import commands

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "experiments").glob("*.md"),
    ]
)
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
HISTORY = "docs/log.md"  # names code and commands as they were then


def defines(path: Path, name: str) -> bool:
    """Whether a file defines a name: a class, a function, a method, an attribute or a constant."""
    source = path.read_text(encoding="utf-8")
    return all(
        re.search(rf"(def|class) {part}\b|^\s*(self\.)?{part}\b.*[:=]", source, re.MULTILINE)
        for part in name.split(".")
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_name_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        there = page.parent / target if target else page
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in slugs, f"{page.name} links to #{anchor} of {there.name}"


# Commands -----------------------------------------------------------------------------------------


def shown_commands(text: str) -> list[str]:
    """The `unpool ...` lines of code blocks, and those in running text."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:unpool|torchrun) [^`]+)`", prose)
    return [line for line in lines if re.search(r"^unpool |(-m|\|) unpool ", line)]


def words_of(line: str) -> list[str]:
    """The arguments that a line gives to `unpool`; a comment ends it, and so does an ellipsis."""
    words = shlex.split(line, comments=True)
    words = words[words.index("unpool") + 1 :]
    return words[: words.index("...")] if "..." in words else words


def parse(command: click.Command, words: list[str], parent: click.Context | None) -> None:
    """Parse as click does, down to the subcommand, and run nothing.

    Values are converted where that needs no files: choices, numbers and ranges.
    """
    context = click.Context(command, info_name=command.name, parent=parent)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(value, list | tuple | str) and not isinstance(parameter.type, click.Path):
            several = [value] if isinstance(value, str) else value
            for one in several:
                if isinstance(one, str):
                    parameter.type.convert(one, parameter, context)
    if isinstance(command, click.Group) and rest:
        child = command.get_command(context, rest[0])
        assert child is not None, f"{command.name} has no command {rest[0]}"
        parse(child, rest[1:], context)


COMMANDS = [
    pytest.param(line, id=f"{name}: {line}")
    for name, text in TEXTS.items()
    if name != HISTORY
    for line in dict.fromkeys(shown_commands(text))
]


@pytest.mark.parametrize("line", COMMANDS)
def test_shown_commands_parse(line):
    parse(commands, words_of(line), None)


def test_a_wrong_command_is_found():
    for line, message in (
        ("unpool segment photo.jpg --mood whole", "No such option"),
        ("unpool segment photo.jpg --mode hole", "is not one of"),
        ("unpool segment photo.jpg --proposals few", "is not a valid integer"),
    ):
        with pytest.raises(click.UsageError, match=message):
            parse(commands, words_of(line), None)
    with pytest.raises(AssertionError, match="no command"):
        parse(commands, ["segmint"], None)


def test_options_in_running_text_exist():
    """Every `--option` that a page names belongs to some command, or to another program."""
    known = {"--constraint", "--nproc-per-node", "--with-stages", "--help", "--version"}

    def collect(command: click.Command) -> None:
        for parameter in command.params:
            known.update((*parameter.opts, *parameter.secondary_opts))
        for child in getattr(command, "commands", {}).values():
            collect(child)

    collect(commands)
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        known.update(re.findall(r'"(--[\w-]+)', script.read_text(encoding="utf-8")))
    for name, text in TEXTS.items():
        if name in (HISTORY, "CHANGELOG.md"):
            continue
        for option in re.findall(r"`[^`\n]*?(--[a-z][\w-]+)", text):
            assert option in known, f"{name} names {option}"


# Code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "columns", "least"),
    [
        ("paper-deconvnet", 6, 20),
        ("paper-fcn", 5, 7),
        ("paper-deeplab", 5, 18),
        ("paper-crfrnn", 5, 15),
        ("paper-segnet", 5, 20),
        ("paper-decouplednet", 5, 20),
        ("paper-densecrf", 5, 5),
        ("paper-whitening", 5, 15),
        ("paper-visualize", 5, 20),
        ("paper-generate", 5, 20),
        ("paper-restore", 5, 20),
    ],
)
def test_the_parity_pages_point_to_code_and_tests(name, columns, least):
    page = TEXTS[f"docs/{name}.md"]
    rows = [line.split("|") for line in page.splitlines() if line.count("|") == columns + 1]
    assert len(rows) > least
    for *_, code, test, _ in rows:
        for path in re.findall(r"`([\w/]+\.py)", code):
            assert (ROOT / "src/unpool" / path).exists(), path
        for path, names in re.findall(r"`([\w/]+\.py): ([\w., ]+)", code):
            for one in names.split(", "):
                assert defines(ROOT / "src/unpool" / path, one), f"{path}: {one}"
        for path in re.findall(r"`([\w/]+\.py)", test):
            assert (ROOT / "tests" / path).exists(), path


def test_files_that_the_pages_name_exist():
    """`some/file.py` on any page is a file of the package, or one from the root."""
    for name, text in TEXTS.items():
        if name in (HISTORY, "CHANGELOG.md"):
            continue
        for path in re.findall(r"`(?:python )?([\w/]+/\w+\.py)\b", text):
            places = [ROOT / part / path for part in ("", "src/unpool", "tests")]
            assert any(place.exists() for place in places), f"{name} names {path}"
        for module in re.findall(r"python -m (experiments[.\w]*)", text):
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{name} names {module}"


def test_names_that_the_pages_import_from_the_package_exist():
    """`unpool.room.module.name` in running text can be imported."""
    for page, text in TEXTS.items():
        if page in (HISTORY, "CHANGELOG.md"):
            continue
        for dotted in set(re.findall(r"`(unpool(?:\.\w+)+)", text)):
            module, parts = "unpool", dotted.split(".")[1:]
            thing = importlib.import_module(module)
            for part in parts:
                module = f"{module}.{part}"
                if not hasattr(thing, part):
                    importlib.import_module(module)  # raises, and names what is missing
                thing = getattr(thing, part)


def test_the_python_blocks_import_names_that_exist():
    for page, text in TEXTS.items():
        if page in (HISTORY, "CHANGELOG.md"):
            continue
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unpool"):
                    module = importlib.import_module(str(node.module))
                    for name in node.names:
                        assert hasattr(module, name.name), f"{page}: {node.module}.{name.name}"


def test_the_architecture_page_names_code_that_exists():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py): (\w+)`", page)
    assert len(named) > 15
    for path, name in named:
        assert defines(ROOT / "src/unpool" / path, name), f"{path}: {name}"
