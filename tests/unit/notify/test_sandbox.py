"""Templates put values into words and can do nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from certrail.events import KINDS
from certrail.notify.compose import builtin, compose
from certrail.notify.sample import EVENT, SAMPLE
from certrail.notify.sandbox import check_template, render
from certrail.notify.settings import NotificationSettings

EVIL = "{{ 7 * 7 }}{% for x in y %}<script>alert(1)</script>\r\nBcc: x@example.test"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ location.__class__ }}",
        "{{ location['__class__'] }}",
        "{{ location.format(1) }}",
        "{{ events.append(1) }}",
        "{{ payload.get('x') }}",
        "{{ range(10) }}",
        "{{ lipsum() }}",
        "{{ self.x }}{{ cycler.__init__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 2 ** 100000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ location | attr('__class__') }}",
        "{% for a in facts %}{% for b in facts %}{% for c in facts %}x{% endfor %}{% endfor %}"
        "{% endfor %}",
        "{% for a in facts recursive %}{{ loop(facts) }}{% endfor %}",
        "{{ unknown }}",
        "{{ location",
        "x" * 20_001,
    ],
)
def test_what_a_template_cannot_do(source: str) -> None:
    """Whoever edits words does not get to run code, read files or fill the memory."""
    with pytest.raises(ValueError, match="template of `text`"):
        check_template(source, "text")


def test_our_own_templates_pass_the_same_rules() -> None:
    """They are the example that people begin from."""
    for part in ("subject", "text", "html"):
        for single in (True, False):
            source = builtin(part, single=single)
            data = {**SAMPLE, "because": "digest"}
            assert render(source, data, html=part == "html", strict=True)


def evil_event(**fields: Any) -> dict[str, Any]:
    return {
        **EVENT,
        "location": EVIL,
        "cause": EVIL,
        "remedy": EVIL,
        "facts": [{"name": EVIL, "value": EVIL}],
        "commands": [EVIL],
        "payload": {"request_id": "r"},
        **fields,
    }


@pytest.mark.parametrize("count", [1, 3])
def test_values_are_never_templates_nor_markup(count: int) -> None:
    """A location, or the words of a server that refused us, may hold anything."""
    message = compose(
        [evil_event()] * count, NotificationSettings(), message_id="m", recipient="a@b.test"
    )

    assert "49" not in message.subject + message.text
    assert "{{ 7 * 7 }}" in message.text
    assert "<script>" not in message.html
    assert "&lt;script&gt;" in message.html
    assert "\n" not in message.subject
    assert "\r" not in message.subject


def test_own_words_are_used_for_the_event_they_are_for() -> None:
    """And ours where nothing else is said."""
    settings = NotificationSettings.model_validate(
        {
            "templates": {
                "automation-failed": {"subject": "Hilfe: {{ location | upper }}"},
                "all": {"text": "{{ title }}!"},
            }
        }
    )
    message = compose([EVENT], settings, message_id="m", recipient="")

    assert message.subject == "Hilfe: WWW.EXAMPLE.ORG:443"
    assert message.text == "Automation failed!"
    assert "<table" in message.html


def test_a_template_that_breaks_later_loses_no_message() -> None:
    """What was fine for the sample may not be for an event: our words then."""
    settings = NotificationSettings.model_validate(
        {"templates": {"all": {"text": "{{ days_left + 1 }} days"}}}
    )
    message = compose([{**EVENT, "days_left": None}], settings, message_id="m", recipient="")

    assert "Cause:" in message.text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.slug)
def test_every_event_reads_well(kind: Any) -> None:
    """No empty heading, no None, no trace of a template."""
    event = {**EVENT, "title": kind.title, "severity": str(kind.severity), "needs": kind.needs}
    bare = {**event, "cause": "", "remedy": "", "detail": "", "facts": [], "link": ""}
    for one in (event, {**bare, "days_left": None, "commands": []}):
        message = compose([one], NotificationSettings(), message_id="m", recipient="")
        for part in (message.subject, message.text, message.html):
            assert "None" not in part
            assert "{{" not in part
        assert kind.title in message.subject
