"""Which kind of connector may stand where in a configuration file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from certrail.cli._yaml import Path_
from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.profile import ProfileConfig
from certrail.errors import InvalidRequest
from certrail.model import Workflow
from certrail.notify.rules import MAIL, mail_channel
from certrail.notify.settings import NotificationSettings
from certrail.servers import registry

Complain = Callable[[Path_, str], None]

_CA = "certificate authority"
_DNS = "DNS provider"
_HOST = "host"
_INSTALL = "install target"
_DELIVERY = "delivery target"
_NOTIFIER = "notifier"
_TARGETS: Mapping[Workflow, tuple[str, ...]] = {
    Workflow.WEB_SERVER: (_HOST, _INSTALL),
    Workflow.APPLIANCE: (_INSTALL, _HOST),
    Workflow.DELIVERY: (_DELIVERY, _HOST),
}


def check_profile(
    path: Path_, profile: ProfileConfig, kinds: Mapping[str, str], complain: Complain
) -> None:
    """Check the connectors that a profile names."""
    _expect((*path, "ca"), profile.ca, (_CA,), kinds, complain)
    if profile.validation and profile.validation.dns:
        _expect((*path, "validation", "dns"), profile.validation.dns, (_DNS,), kinds, complain)
    _expect_channels((*path, "notifications"), profile.notifications.channels, kinds, complain)


def check_notifications(
    path: Path_,
    rules: NotificationSettings,
    slugs: Mapping[str, str],
    kinds: Mapping[str, str],
    complain: Complain,
) -> None:
    """Check the notifiers that the account-wide rules name.

    Args:
        path: where the rules are.
        rules: the rules.
        slugs: type of each connector, by name.
        kinds: kind of each connector, by name.
        complain: gets what is wrong.
    """
    _expect_channels(path, rules.channels, kinds, complain)
    fits = rules.mail and _expect((*path, "mail"), rules.mail, (_NOTIFIER,), kinds, complain)
    if fits and rules.mail and slugs[rules.mail] != MAIL:
        complain((*path, "mail"), f"{rules.mail} is a {slugs[rules.mail]}, not a {MAIL}")
    if rules.email and mail_channel(rules, slugs) is None:
        complain(
            (*path, "email"),
            f"nothing carries e-mail: add a connector of type {MAIL}, or say with `mail` which one",
        )


def _expect_channels(
    path: Path_, channels: Sequence[str], kinds: Mapping[str, str], complain: Complain
) -> None:
    for index, name in enumerate(channels):
        _expect((*path, "channels", index), name, (_NOTIFIER,), kinds, complain)


def check_endpoint(
    path: Path_,
    endpoint: EndpointConfig,
    profiles: Mapping[str, ProfileConfig],
    kinds: Mapping[str, str],
    complain: Complain,
) -> None:
    """Check the profile and target that an endpoint names, and that its server fits them."""
    profile = profiles.get(endpoint.profile) if endpoint.profile else None
    if endpoint.profile and profile is None:
        complain((*path, "profile"), _nowhere("profile", endpoint.profile, profiles))
    if not endpoint.target:
        return
    allowed = _TARGETS[profile.workflow] if profile else (_HOST, _INSTALL, _DELIVERY)
    if not _expect((*path, "target"), endpoint.target, allowed, kinds, complain):
        return
    if profile is None:
        return
    if endpoint.also_on and profile.workflow is Workflow.DELIVERY:
        complain((*path, "also_on"), "is for what is installed, not for deliveries")
    if endpoint.also_on and profile.key.location == "host":
        complain(
            (*path, "also_on"),
            f"the key stays on its machine by the profile {profile.name}, so it can be only one",
        )
    for index, place in enumerate(endpoint.also_on):
        where = (*path, "also_on", index)
        fits = _expect((*where, "target"), place.target, allowed, kinds, complain)
        if fits and kinds[place.target] == _HOST and profile.workflow is Workflow.WEB_SERVER:
            further = endpoint.model_copy(update={"server": place.server or endpoint.server})
            _check_server(where, further, profile, complain)
    on_host = kinds[endpoint.target] == _HOST
    if profile.validation and profile.validation.webroot and not on_host:
        complain(
            (*path, "target"),
            f"the profile {profile.name} publishes proofs in a webroot, which needs a host",
        )
    if on_host and profile.workflow is Workflow.WEB_SERVER:
        _check_server(path, endpoint, profile, complain)


def _check_server(
    path: Path_, endpoint: EndpointConfig, profile: ProfileConfig, complain: Complain
) -> None:
    try:
        registry.check_settings(endpoint.server)
        if profile.key.location == "host":
            registry.must_keep_keys(endpoint.server)
    except InvalidRequest as exc:
        complain((*path, "server") if endpoint.server else path, f"{exc}. {exc.remedy}")


def _expect(
    path: Path_,
    name: str,
    allowed: tuple[str, ...],
    kinds: Mapping[str, str],
    complain: Complain,
) -> bool:
    if name not in kinds:
        complain(path, _nowhere("connector", name, kinds))
        return False
    if kinds[name] and kinds[name] not in allowed:
        complain(path, f"{name} is a {kinds[name]}, but a {' or '.join(allowed)} is needed here")
        return False
    return True


def _nowhere(what: str, name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {what} {name!r} in the file or in the inventory{hint}"
