"""An administrator starts a request from Prefect's pages: the form, asked as the pages ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from certrail.model import Workflow
from tests.integration.cli.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for

TITLES = {
    "location": "Endpoint location",
    "action": "Action",
    "when": "When",
    "at": "Begin at",
    "reason": "Reason",
    "requested_by": "Requested by",
}


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


class Form:
    """The Custom run page of the form of a workflow, or of ``rollback``."""

    def __init__(self, api: PrefectApi, flow: str = Workflow.WEB_SERVER) -> None:
        self._api = api
        self.deployment = api.get(f"/deployments/name/{flow}/start-{flow}")

    def send(self, **fields: Any) -> str:
        """Press Submit, with a name as the page makes it up; return the flow run's id."""
        run = self._api.post(
            f"/deployments/{self.deployment['id']}/create_flow_run",
            name="brave-lynx",
            parameters=fields,
            state={"type": "SCHEDULED", "message": "Run from the Prefect UI"},
        )
        return str(run["id"])

    def refused(self, **fields: Any) -> dict[str, Any]:
        """Send what has to be refused by our checks; return the run with its final state."""
        run = self._api.wait(self.send(**fields), "FAILED")
        assert run["state_name"] == "Refused", run["state"]
        assert run["state"]["message"].endswith("Nothing was ordered.")
        return run

    def unsent(self, **fields: Any) -> str:
        """Send what the page itself has to refuse; return what it shows."""
        with pytest.raises(httpx.HTTPStatusError) as caught:
            self.send(**fields)
        assert caught.value.response.status_code == 409
        return str(caught.value.response.json()["detail"])


@pytest.mark.parametrize("workflow", list(Workflow))
def test_each_workflow_has_a_form_for_people(api: PrefectApi, workflow: Workflow) -> None:
    """Titles, descriptions and choices instead of the names of parameters."""
    form = Form(api, workflow).deployment

    fields = form["parameter_openapi_schema"]["properties"]
    assert {name: field["title"] for name, field in fields.items()} == TITLES
    assert all(len(field["description"]) > 20 for field in fields.values())
    assert fields["action"]["enum"] == [
        "enroll or renew",
        "enroll",
        "renew",
        "reissue",
        "redeploy",
    ]
    assert fields["when"]["enum"] == ["now", "at", "maintenance window"]
    assert form["parameter_openapi_schema"]["required"] == ["location"]
    assert form["enforce_parameter_schema"] is True
    assert "Custom run" in form["description"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({}, "location", id="no location"),
        pytest.param({"location": "a b"}, "location", id="two words"),
        pytest.param({"location": "www.cli.example.test:443", "action": "rewnew"}, "action"),
        pytest.param({"location": "www.cli.example.test:443", "when": "later"}, "when"),
        pytest.param({"location": "www.cli.example.test:443", "force": True}, "force"),
        pytest.param({"location": "www.cli.example.test:443", "request_id": "1"}, "request_id"),
    ],
)
def test_nonsense_never_becomes_a_run(api: PrefectApi, fields: dict[str, Any], said: str) -> None:
    """The page says it beside the button, and there is nothing to clean up."""
    assert said in Form(api).unsent(**fields)


def _logged(api: PrefectApi, run: str, text: str) -> bool:
    return text in api.logs(run)


def test_the_form_makes_the_normal_request(shell: Shell, api: PrefectApi) -> None:
    """One row; the run that was submitted is renamed and shows the steps."""
    location = shell.location("form")

    run = Form(api).send(
        location=f" {location.upper()} ", reason="the server was replaced", requested_by="Ada L."
    )

    ended = api.wait(run, "COMPLETED")
    assert ended["name"] == f"enroll {location}"
    shown = shell.json("request", "show", location)
    assert shown["flow_run_id"] == run
    assert shown["status"] == "automation-successful"
    assert shown["requested_by"] == "Ada L. (Prefect UI)"
    assert shown["reason"] == {
        "code": "requested",
        "message": "asked by Ada L. (Prefect UI): the server was replaced",
    }
    assert len(shell.json("request", "list", "--location", location)) == 1
    assert "1 request, 5 task runs" in must_agree(shell.stack, locations=[location])
    # Once more, with the choices.
    again = api.wait(Form(api).send(location=location, action="reissue"), "COMPLETED")
    assert again["name"] == f"reissue {location}"
    # Pressing Retry on a request that was successful does no harm.
    api.retry(run)
    assert "nothing was done" in api.wait(run, "COMPLETED", runs=2)["state"]["message"]
    must_agree(shell.stack, locations=[location])


def test_what_cannot_work_is_refused_with_the_reason(shell: Shell, api: PrefectApi) -> None:
    """The same checks as those of the command line, before anything is ordered."""
    location, form = shell.location("refused"), Form(api)
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    bare = {"endpoints": [{"location": shell.location("bare")}]}
    shell("apply", "-f", str(shell.write("bare.yaml", bare)))
    shell("request", "start", location, "--at", "+2h")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"location": "refusd.cli.example.test:443"}, f"Did you mean {location}?"),
        ({"location": location}, "has an active request already"),
        ({"location": shell.location("bare")}, "has no profile"),
        ({"location": location, "when": "at"}, "Begin at is empty"),
        ({"location": location, "when": "at", "at": past}, "is in the past"),
        ({"location": location, "when": "now", "at": past}, "but When is `now`"),
        ({"location": location, "when": "at", "at": "tomorrow"}, "At: "),
        ({"location": location, "when": "maintenance window"}, "has no maintenance window"),
    ]

    said = {text: form.refused(**fields) for fields, text in cases}

    for text, run in said.items():
        assert text in run["state"]["message"]
        assert run["name"].startswith("refused: ")
        wait_for(partial(_logged, api, run["id"], text), f"the log says {text}")
    other = Form(api, Workflow.DELIVERY).refused(location=location)
    assert "whose workflow is web-server, not delivery" in other["state"]["message"]
    assert len(shell.json("request", "list", "--location", location)) == 1
    shell("request", "cancel", location)
    # Once the reason is gone, Retry on the refused run's page makes the request.
    api.retry(said["has an active request already"]["id"])
    done = api.wait(said["has an active request already"]["id"], "COMPLETED", runs=2)
    assert done["name"] == f"enroll {location}"
    must_agree(shell.stack, locations=[location])


def test_a_request_for_later_is_checked_now_and_waits(shell: Shell, api: PrefectApi) -> None:
    """An error at two in the morning would be found out at two in the morning."""
    location, form = shell.location("later"), Form(api)
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    run = form.send(location=location, when="at", at=tomorrow.isoformat())

    waiting = api.wait(run, "SCHEDULED", runs=1)
    assert waiting["name"] == f"enroll {location}"
    assert datetime.fromisoformat(waiting["state"]["state_details"]["scheduled_time"]) == tomorrow
    assert "as asked" in waiting["state"]["message"]
    shown = shell.json("request", "show", location)
    assert shown["status"] == "automation-scheduled"
    must_agree(shell.stack, locations=[location])
    shell("request", "cancel", location)
    assert api.wait(run, "CANCELLED")
    soon = form.send(
        location=location, when="at", at=(datetime.now(UTC) + timedelta(seconds=6)).isoformat()
    )
    assert api.wait(soon, "COMPLETED")["name"] == f"enroll {location}"
    must_agree(shell.stack, locations=[location])


def test_retry_on_a_failed_runs_page_is_the_retry_of_the_command_line(
    shell: Shell, api: PrefectApi
) -> None:
    """At three in the morning people press the button that they see."""
    location = shell.location("pressed")
    good = shell.configuration()
    wrong = json.loads(json.dumps(good))
    entry = next(one for one in wrong["endpoints"] if one["location"] == location)
    entry["server"]["site"] = "nothere.example.test"
    shell("apply", "-f", str(shell.write("pressed-wrong.yaml", wrong)))
    run = Form(api).send(location=location)
    failed = api.wait(run, "FAILED")
    assert "4. Certificate installed: no server block" in failed["state"]["message"]
    must_agree(shell.stack, locations=[location])
    shell("apply", "-f", str(shell.write("pressed-right.yaml", good)))

    api.retry(run)

    assert api.wait(run, "COMPLETED", runs=2)
    shown = shell.json("request", "show", location)
    assert shown["status"] == "automation-successful"
    assert [step["attempts"] for step in shown["steps"]][:3] == [1, 1, 1]
    must_agree(shell.stack, locations=[location])


def test_a_cancelled_request_is_not_brought_back_by_a_restart(
    shell: Shell, api: PrefectApi
) -> None:
    """Prefect may start a run again of itself; only a person's Retry opens a request again."""
    location = shell.location("form-cancelled")
    made = shell.json("request", "start", location, "--at", "+2h")
    shell("request", "cancel", location)
    for _ in range(2):
        api.restart(made["flow_run_id"], "The worker was stopped; another one goes on.")
        ended = api.wait(made["flow_run_id"], "FAILED", "CANCELLED")

    assert ended["state_type"] == "CANCELLED"
    assert "nothing was done" in ended["state"]["message"]
    assert shell.json("request", "show", location)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({}, "request", id="no request"),
        pytest.param({"request": "a b"}, "request", id="two words"),
        pytest.param({"request": "3f2a9c41", "force": "perhaps"}, "force"),
        pytest.param({"request": "3f2a9c41", "location": "x:443"}, "location"),
    ],
)
def test_nonsense_never_becomes_a_rollback(
    api: PrefectApi, fields: dict[str, Any], said: str
) -> None:
    """The page says it beside the button."""
    assert said in Form(api, "rollback").unsent(**fields)


def test_the_form_goes_back(shell: Shell, api: PrefectApi) -> None:
    """As the command line goes back; what has no way back is refused with the reason."""
    location, form = shell.location("back"), Form(api, "rollback")
    nowhere = form.refused(request="nothere.cli.example.test:443")
    assert nowhere["name"] == "refused: nothere.cli.example.test:443"
    for _ in range(2):
        shell("request", "start", location, "--action", "reissue", "--wait")
    first, second = [
        one["certificate"]["serial"]
        for one in sorted(
            shell.json("request", "list", "--location", location), key=lambda one: one["created_at"]
        )
    ]
    assert first != second

    run = form.send(request=f" {location} ", reason="the app broke", requested_by="Ada L.")

    ended = api.wait(run, "COMPLETED")
    assert ended["name"] == f"start rollback {location}"
    assert ended["state_name"] == "Handed over"

    def over() -> bool:
        shown = shell.json("request", "show", location)
        return bool(shown["action"] == "rollback" and shown["status"] == "automation-successful")

    wait_for(over, "it went back", within=90)
    shown = shell.json("request", "show", location)
    assert shown["certificate"]["serial"] == first
    assert shown["requested_by"] == "Ada L. (Prefect UI)"
    assert shown["reason"]["message"].endswith(f"back to {first}: the app broke")
    assert shown["flow_run_id"] in ended["state"]["message"]
    # Pressed again, it tells of the request that it made, and does not go back once more.
    api.retry(run)
    assert shown["flow_run_id"] in api.wait(run, "COMPLETED", runs=2)["state"]["message"]
    assert len(shell.json("request", "list", "--location", location)) == 3
    must_agree(shell.stack, locations=[location])
