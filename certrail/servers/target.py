"""What installing on a server is, whatever the server: survey, stage, check, switch, reload.

A kind of server says where a site's certificate is configured and which bytes
have to change (:meth:`FileTarget.survey`); everything else is here.
"""

from __future__ import annotations

import posixpath
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.connectors import Host
from certrail.errors import ActivationRefused, Conflict, InvalidRequest
from certrail.model import (
    Bundle,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Site,
    Staged,
    SubjectSpec,
    key_text,
    subject_names,
)
from certrail.servers.key_file import KeyFile
from certrail.servers.plan import Plan
from certrail.servers.program import Program
from certrail.servers.settings import ServerSettings
from certrail.servers.splice import Splice, replacements, splice
from certrail.servers.switched import SwitchedTarget
from certrail.servers.transaction import Control, FileChange, Starts, Transaction
from certrail.servers.versions import Form, Versions, slug, version_of
from certrail.x509.chain import must_be_installable

SITE_FIELDS = {"site", "listen"}
"""Settings that differ between the sites of one server."""


class ProgramControl(Control):
    """A :class:`Control` with the program it speaks to."""

    program: Program

    @abstractmethod
    def version(self) -> str:
        """Return the program's name and version."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that is to be configured.

    Attributes:
        key_kind: ``RSA`` or ``ECDSA``.
        names: what it is valid for.
    """

    key_kind: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """A site as it is, and the bytes that make it name our certificate.

    Attributes:
        place: ``file:line``, for people.
        directory: where the site's certificates are kept.
        configured: what is configured now, the one that counts first.
        files: content of each file to be changed, by path.
        splices: the change of each file.
    """

    place: str
    directory: str
    configured: tuple[Fingerprint, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    splices: Mapping[str, tuple[Splice, ...]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The change, for people."""
        after = {path: splice(self.files[path], made) for path, made in self.splices.items()}
        changed = {path: data for path, data in after.items() if data != self.files[path]}
        all_made = [one for path in changed for one in self.splices[path]]
        added = sum(one.start == one.end for one in all_made)
        return Plan(
            self.place,
            self.directory,
            {path: self.files[path] for path in changed},
            changed,
            len(all_made) - added,
            added,
        )


class FileTarget(SwitchedTarget):
    """A server program on a host that reads certificates from files."""

    form: ClassVar[Form] = Form.PAIR
    """How chain and key are laid out in files."""
    blind: ClassVar[bool] = False
    """Whether the server's own test does not look at keys and certificates."""
    control: ProgramControl

    def __init__(self, host: Host, settings: ServerSettings, control: ProgramControl) -> None:
        self.host = host
        self.settings = settings
        self.control = control
        self.keeps_keys = self.form is Form.PAIR
        # One that is started anew for some changes and not for others is asked for each.
        alone = isinstance(control, Starts)
        same = settings.model_dump_json(exclude=SITE_FIELDS)
        self.group = "" if alone else f"{self.server} {same}"

    @property
    @abstractmethod
    def base(self) -> str:
        """Directory that holds the certificates of all sites."""

    @abstractmethod
    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        """Find *site*, and what has to change so that it names the certificate *wanted*.

        Without *wanted* only what is configured now is asked for.

        Raises:
            InvalidRequest: it cannot be found or changed safely; the remedy says which
                lines a person would change.
        """

    def serving(self, site: Site) -> Fingerprint | None:
        return next(iter(self.survey(site, None).configured), None)

    def plan(self, site: Site, bundle: Bundle) -> Plan:
        """Return what installing *bundle* would change; nothing is changed.

        Raises:
            InvalidRequest: the configuration cannot be changed safely.
        """
        self._must_be_takable(bundle)
        self.must_be_sound()
        return self.survey(site, wanted_of(bundle)).plan

    def make_csr(self, site: Site, subject: SubjectSpec, reference: str) -> Csr:
        wanted = Wanted(kind_of_algorithm(subject.algorithm), subject.names)
        return self.versions(self.survey(site, wanted).directory).make_csr(subject, reference)

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        self._must_be_takable(bundle)
        if not self.is_sound:
            self.must_be_sound()
        wanted = wanted_of(bundle)
        survey = self.survey(site, wanted)
        new = bundle.chain.fingerprint
        configured = survey.configured
        if replaces is not None and not {replaces, new} & set(configured):
            raise Conflict(
                f"{site.id} is configured with {_short(configured)}, not with {replaces[:16]}…",
                connector=self.host.name,
            )
        version = self.versions(survey.directory).stage(bundle)
        return Staged(
            site=site.id,
            fingerprint=new,
            replaces=replaces or (configured[0] if configured else None),
            summary=f"{self.server}: {survey.plan.summary} "
            f"({key_text(bundle.chain.leaf)} for {survey.place})",
            data={
                "site": self.site_name(site),
                "listen": self.site_listen(site),
                "directory": survey.directory,
                "version": version,
                "key_kind": wanted.key_kind,
                "names": list(wanted.names),
                "configured": [str(one) for one in configured],
            },
        )

    @property
    def told(self) -> str:
        tested = "configuration tested, " if self.test_command else ""
        return f"{tested}{self.control.program.told}"

    def _change(self, staged: Staged) -> tuple[Transaction, list[FileChange], str]:
        transaction, versions = self._transaction(staged)
        Transaction.begin_again(self.host, versions, server=self.server)
        site = Site(staged.site, settings=dict(staged.data))
        wanted = Wanted(str(staged.data["key_kind"]), tuple(staged.data["names"]))
        survey = self.survey(site, wanted)
        plan = survey.plan
        if versions.live() == version_of(staged.fingerprint) and not plan.after:
            return transaction, [], ""
        expected = {*staged.data["configured"], staged.fingerprint}
        if survey.configured and not set(survey.configured) & expected:
            raise Conflict(
                f"{staged.site} is configured with {_short(survey.configured)}: another "
                "certificate was installed since this one was staged",
                connector=self.host.name,
            )
        if plan.directory != versions.directory:
            raise ActivationRefused(
                f"the certificates of {staged.site} were rearranged since this one was staged, "
                f"so it belongs into {plan.directory} now",
                remedy="Retry: the certificate is staged again, no new order is made.",
            )
        if self.blind:
            versions.must_be_whole(version_of(staged.fingerprint))
        changes = [
            FileChange(
                self.host.real_path(path),
                plan.before[path],
                after,
                replacements(plan.before[path], survey.splices[path]),
            )
            for path, after in plan.after.items()
        ]
        return transaction, changes, plan.summary

    def site_name(self, site: Site) -> str:
        """Return the name of *site*.

        Raises:
            InvalidRequest: it has none.
        """
        name = str(site.settings.get("site", "")) or self.settings.site
        if not name and "site" not in site.settings:
            raise InvalidRequest(
                "no site given", remedy="Set `site` of the endpoint's server to the server name."
            )
        return name

    def site_listen(self, site: Site) -> str:
        """Return the address of *site*, "" for any."""
        return str(site.settings.get("listen", "") or self.settings.listen)

    def directory_of(self, site: Site) -> str:
        """Return where the certificates of *site* are kept."""
        name, listen = self.site_name(site), self.site_listen(site)
        return posixpath.join(self.base, slug(f"{name}@{listen}" if listen else name))

    def versions(self, directory: str) -> Versions:
        """Return the versions kept in *directory*."""
        return Versions(self.host, directory, key_file=self.key_file, form=self.form)

    def account(self) -> str:
        """Return who has to own keys where nothing else is said, "" for the account used."""
        return ""

    @property
    def key_file(self) -> KeyFile:
        """How files with a key are written."""
        set_by_hand = self.settings.key_file
        if set_by_hand.owner or not (account := self.account()):
            return set_by_hand
        return replace(set_by_hand, owner=account)

    def beside(self, config: str) -> str:
        """Return where certificates are kept: where it is set, else in a folder beside *config*."""
        return self.settings.directory or posixpath.join(posixpath.dirname(config), "certrail")

    def _must_be_takable(self, bundle: Bundle) -> None:
        must_be_installable(bundle)
        if bundle.key is None and self.form is not Form.PAIR:
            raise InvalidRequest(
                f"{self.server} needs the private key, and this certificate came without one",
                remedy="Let Certrail make the key: choose an algorithm in the profile.",
            )

    def _transaction(self, staged: Staged) -> tuple[Transaction, Versions]:
        directory = str(staged.data["directory"])
        inside = posixpath.dirname(directory) == self.base
        if not inside or posixpath.normpath(directory) != directory:
            raise InvalidRequest(
                f"{staged.site} was staged in {directory}, outside {self.base}",
                remedy="Stage it again: `directory` of the endpoint's server has changed.",
            )
        versions = self.versions(directory)
        version = version_of(staged.fingerprint)
        return Transaction(self.host, versions, version, server=self.server), versions


def wanted_of(bundle: Bundle) -> Wanted:
    """Return what the configuration has to name for *bundle*."""
    leaf = bundle.chain.leaf
    return Wanted(kind_of_key(leaf.public_key()), tuple(subject_names(leaf)))


def kind_of_key(key: object) -> str:
    """Return the kind of a public key as TLS tells certificates apart."""
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA"
    return "ECDSA" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__


def kind_of_algorithm(algorithm: KeyAlgorithm) -> str:
    """Return the kind of the keys that *algorithm* makes, as :func:`kind_of_key` tells it."""
    return "RSA" if algorithm.startswith("rsa-") else "ECDSA"


def only_one(host: Host, patterns: Iterable[str]) -> str:
    """Return the only file on *host* that one of *patterns* means.

    Raises:
        InvalidRequest: there are several, or none.
    """
    found = list(dict.fromkeys(path for pattern in patterns for path in host.glob(pattern)))
    if len(found) != 1:
        raise InvalidRequest(
            f"which configuration of {host.name} is meant cannot be told: "
            + (", ".join(found) or "none is in the usual places"),
            remedy="Set `config` of the endpoint's server to its path.",
        )
    return found[0]


def first_existing(host: Host, candidates: Iterable[str]) -> str:
    """Return the first of *candidates* that is on *host*, "" if none is."""
    return next((path for path in candidates if host.info(path) is not None), "")


def _short(found: Iterable[Fingerprint]) -> str:
    return " and ".join(f"{one[:16]}…" for one in found) or "no certificate"
