"""The documentation says what the code does, and every link in it leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from blocks._base import TargetBlock
from certrail import errors
from certrail.cli.commands import cli
from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.profile import ProfileConfig
from certrail.servers.registry import kinds
from certrail.tracker import STEPS, Status
from deployments.docs.commands import commands
from deployments.docs.pages import CONNECTORS, ROOT, SECTIONS, pages, regions, stale
from deployments.docs.regions import MODELS, SERVERS, capabilities, connectors, targets_of

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PAGES = {str(path.relative_to(ROOT)): path for path in pages()}


def blocks(path: Path, language: str) -> Iterator[str]:
    """Yield the fenced blocks of a page in one language."""
    for match in _FENCE.finditer(path.read_text()):
        if match[1] == language:
            yield match[2]


def anchors(path: Path) -> set[str]:
    """Return what a link into the page may name, as GitHub makes it from the headings."""
    prose = _FENCE.sub("", path.read_text())
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(text.replace(" ", "-"))
    return found


def typed_commands() -> list[tuple[str, str]]:
    """Return every `certrail …` that a page tells people to type."""
    found = []
    for name, path in _PAGES.items():
        for block in blocks(path, "sh"):
            joined = block.replace("\\\n", " ")
            found += [(name, line) for line in joined.splitlines() if line.startswith("certrail ")]
    return found


def test_generated_parts_are_what_the_code_says() -> None:
    """`python -m deployments.docs` brings them up to date."""
    assert [str(path.relative_to(ROOT)) for path in stale()] == []


def test_every_install_target_states_what_it_can_do() -> None:
    """Whether it can put back, has to be saved, makes its own key is read before it is bought."""
    for block in TargetBlock.vendors():
        assert targets_of(block), block
        page = (CONNECTORS / f"{block.get_block_type_slug()}.md").read_text()
        for one in targets_of(block):
            assert "traits" in vars(one), f"{one.__name__} leaves its traits to the default"
            assert capabilities(one) in page


def test_every_connector_has_a_page() -> None:
    """With its settings, what it needs on the other side, and what it was tested against."""
    for slug in connectors():
        path = CONNECTORS / f"{slug}.md"
        assert path.exists(), f"no page for {slug}: python -m deployments.docs begins it"
        text = path.read_text()
        assert ("connector", slug) in regions(text), path
        for heading in SECTIONS:
            _, found, after = text.partition(f"{heading}\n")
            written = after.partition("\n## ")[0].strip()
            assert found
            assert written, f"{path.relative_to(ROOT)}: write the section {heading!r}"


def test_no_page_describes_a_connector_that_is_gone() -> None:
    """Nobody should look for it in vain."""
    described = {path.stem for path in CONNECTORS.glob("*.md")}
    assert described - {"README"} == set(connectors())


def test_every_kind_of_server_has_a_page() -> None:
    """The registry is what the program knows; the table of models is what is shown."""
    assert set(SERVERS) == set(kinds())
    for kind in kinds():
        path = ROOT / "docs" / "servers" / f"{kind}.md"
        assert path.exists(), f"write docs/servers/{kind}.md"
        assert ("server", kind) in regions(path.read_text())
        assert f"({kind}.md)" in (ROOT / "docs" / "servers" / "README.md").read_text()


def test_every_part_of_the_configuration_file_is_described() -> None:
    """Each model has its table, and each field says what it means."""
    shown = {what for kind, what in regions(_PAGES["docs/configuration.md"].read_text()) if kind}
    assert shown == set(MODELS)
    nested = {
        field.annotation
        for model in (ProfileConfig, EndpointConfig)
        for field in model.model_fields.values()
    }
    models = {one for one in nested if isinstance(one, type) and hasattr(one, "model_fields")}
    assert models <= set(MODELS.values())
    silent = [
        f"{name}.{field}"
        for name, model in MODELS.items()
        for field, info in model.model_fields.items()
        if not info.description
    ]
    assert silent == []


def test_every_setting_of_a_connector_says_what_it_means() -> None:
    """A table without meanings is no help."""
    silent = [
        f"{slug}.{field}"
        for slug, block in connectors().items()
        for field, info in block.model_fields.items()
        if not info.description
    ]
    assert silent == []


def test_every_command_has_a_section_and_an_example() -> None:
    """What is not in the reference is found by accident only."""
    headings = set(
        re.findall(r"^#+ (certrail.*)$", _PAGES["docs/cli.md"].read_text(), re.MULTILINE)
    )
    for path, command in commands():
        assert " ".join(path) in headings
        assert command.help, " ".join(path)
        assert "Example" in (command.epilog or ""), f"{' '.join(path)} has no example"


@pytest.mark.parametrize(("page", "line"), typed_commands())
def test_commands_in_the_pages_can_be_typed(page: str, line: str) -> None:
    """Options change; examples must change with them."""
    command: click.Command = cli
    words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)[1:]
    context = click.Context(cli, info_name="certrail")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        assert inner is not None, f"{page}: there is no command {words[0]!r} in {line!r}"
        command, words = inner, words[1:]
    if "--help" in words or not words:
        return
    try:
        command.make_context(command.name, words, parent=context)
    except click.UsageError as exc:
        # A file that the reader has and we have not is no mistake of the page.
        if "does not exist" not in exc.format_message():
            pytest.fail(f"{page}: {line!r}: {exc.format_message()}")


@pytest.mark.parametrize("name", _PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """Relative links to files and headings; addresses elsewhere are not asked."""
    path = _PAGES[name]
    for target in _LINK.findall(_FENCE.sub("", path.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name} links to {target}"
        assert found.is_relative_to(ROOT), f"{name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(found), f"{name}: no heading for {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    seen: set[Path] = set()
    pending = [ROOT / "README.md"]
    while pending:
        path = pending.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        for target in _LINK.findall(path.read_text()):
            if not target.startswith("http"):
                pending.append((path.parent / target.partition("#")[0]).resolve())
    assert set(pages()) <= seen


@pytest.mark.parametrize("name", _PAGES)
def test_yaml_in_the_pages_is_yaml(name: str) -> None:
    """It is copied as it stands."""
    for block in blocks(_PAGES[name], "yaml"):
        assert yaml.safe_load(block)


def test_every_class_of_failure_is_in_the_runbook() -> None:
    """Whoever is woken up looks for the name on the screen."""
    text = _PAGES["docs/operations.md"].read_text()
    families = {errors.CertrailError, errors.ConnectorError}
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, errors.CertrailError) and one not in families:
            assert f"`{one.__name__}`" in text


def test_steps_and_statuses_are_shown_word_for_word() -> None:
    """They are the vocabulary of every screen."""
    text = _PAGES["docs/concepts.md"].read_text()
    for workflow, titles in STEPS.items():
        assert f"| `{workflow}` | {' · '.join(titles)} |" in text
    for status in Status:
        assert f"| {status.text} |" in text
