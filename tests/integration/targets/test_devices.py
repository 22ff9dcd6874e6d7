"""What each appliance can do to an installation, on fakes of their documented APIs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.targets.a10 import A10 as A10Block  # noqa: N811
from blocks.targets.a10 import A10Target, AxapiSession
from blocks.targets.bigip import BigIp as BigIpBlock
from blocks.targets.bigip import BigIpTarget, Session
from blocks.targets.netscaler import NetScaler as NetScalerBlock
from blocks.targets.netscaler import NetScalerTarget, nitro_client
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Unreachable,
)
from certrail.model import Bundle, Site
from certrail.remote import http
from tests.support import a10_api, bigip_api, netscaler_api
from tests.support.a10_api import A10
from tests.support.bigip_api import BigIp
from tests.support.device import SITE, Reply
from tests.support.netscaler_api import NetScaler
from tests.support.nginx import TestCa

PROFILE = Site(bigip_api.PROFILE)
PAIR = Site(netscaler_api.PAIR)
TEMPLATE = Site(a10_api.TEMPLATE)


@pytest.fixture
def f5() -> Iterator[BigIp]:
    """A BIG-IP."""
    with BigIp().running() as device:
        yield device


@pytest.fixture
def adc() -> Iterator[NetScaler]:
    """A NetScaler."""
    with NetScaler().running() as device:
        yield device


@pytest.fixture
def thunder() -> Iterator[A10]:
    """An A10."""
    with A10().running() as device:
        yield device


@contextmanager
def bigip(device: BigIp, **more: Any) -> Iterator[BigIpTarget]:
    """Open a BIG-IP as another process would."""
    with http.client(device.url, ca_bundle=device.roots) as client:
        session = Session(client, "lb", bigip_api.USER, bigip_api.PASSWORD)
        yield BigIpTarget(session, **more)


@contextmanager
def netscaler(device: NetScaler) -> Iterator[NetScalerTarget]:
    """Open a NetScaler as another process would."""
    user, password = netscaler_api.USER, netscaler_api.PASSWORD
    with nitro_client(device.url, user, password, ca_bundle=device.roots) as client:
        yield NetScalerTarget(client, "adc")


@contextmanager
def a10(device: A10) -> Iterator[A10Target]:
    """Open an A10 as another process would."""
    with http.client(device.url, ca_bundle=device.roots) as client:
        yield A10Target(AxapiSession(client, "adc", a10_api.USER, a10_api.PASSWORD))


def fresh(device: BigIp | NetScaler | A10) -> Bundle:
    """Return a new certificate for the site."""
    return device.ca.bundle(SITE)


class TestBigIp:
    """F5 BIG-IP."""

    def test_the_block_gives_its_token_back(self, f5: BigIp) -> None:
        """An account has a hundred of them."""
        block = BigIpBlock(
            url=f5.url,
            username=bigip_api.USER,
            password=SecretStr(bigip_api.PASSWORD),
            ca_bundle=f5.roots,
        )
        with block.connect() as one:
            assert "15.1.10" in one.check()
            assert len(f5.tokens) == 1

        assert not f5.tokens

    def test_no_key_is_left_among_the_uploads(self, f5: BigIp) -> None:
        """The device keeps what is uploaded until somebody removes it."""
        with bigip(f5) as one:
            one.stage(PROFILE, fresh(f5), None)

        assert f5.state.uploads == {}

    def test_saved_and_synchronised(self, f5: BigIp) -> None:
        """A reboot and a failover serve what is served now."""
        with bigip(f5, sync_group="pair") as one:
            staged = one.stage(PROFILE, fresh(f5), None)
            one.activate(staged)
            one.discard(staged)

        assert f5.state.profiles == f5.saved.profiles == f5.synced.profiles
        assert f5.state.certs == f5.saved.certs == f5.synced.certs

    def test_our_old_objects_go_and_those_of_others_stay(self, f5: BigIp) -> None:
        """They go only once nothing uses them and the new ones have passed."""
        for _ in range(3):
            with bigip(f5) as one:
                staged = one.stage(PROFILE, fresh(f5), None)
                one.activate(staged)
                one.discard(staged)

        stem = f"/Common/{staged.data['stem']}"
        assert set(f5.state.certs) == {"/Common/old.crt", f"{stem}.crt", f"{stem}_chain.crt"}
        assert set(f5.state.keys) == {"/Common/old.key", f"{stem}.key"}

    def test_an_object_that_another_profile_uses_stays(self, f5: BigIp) -> None:
        """Somebody pointed a second profile at it."""
        with bigip(f5) as one:
            first = one.stage(PROFILE, fresh(f5), None)
            one.activate(first)
            f5.state.profiles["/Common/second"] = [dict(f5.state.profiles[bigip_api.PROFILE][0])]
            second = one.stage(PROFILE, fresh(f5), None)
            one.activate(second)
            one.discard(second)

        assert f"/Common/{first.data['stem']}.crt" in f5.state.certs

    def test_a_save_that_fails_is_made_up_for(self, f5: BigIp) -> None:
        """The certificate is live: only the saving is repeated."""
        with bigip(f5) as one:
            staged = one.stage(PROFILE, fresh(f5), None)
            f5.fault("POST", "/sys/config", reply=Reply(503, {"code": 503, "message": "busy"}))
            with pytest.raises(Busy):
                one.activate(staged)
            assert f5.saved.profiles != f5.state.profiles

            one.activate(staged)

        assert f5.saved.profiles == f5.state.profiles

    def test_a_transaction_that_was_given_up_may_be_tried_again(self, f5: BigIp) -> None:
        """The device forgets what is not committed in two minutes."""
        with bigip(f5) as one:
            staged = one.stage(PROFILE, fresh(f5), None)
            gone = Reply(404, {"code": 404, "message": "there is no transaction", "errorStack": []})
            f5.fault("PATCH", "/transaction/", reply=gone)
            with pytest.raises(Busy):
                one.activate(staged)
            one.activate(staged)

        assert staged.fingerprint == f5.served()

    def test_replaced_by_somebody_between_stage_and_activate(self, f5: BigIp) -> None:
        """Their certificate stays, and nothing of theirs is put back by us."""
        theirs = fresh(f5)
        assert theirs.key is not None
        with bigip(f5) as one:
            staged = one.stage(PROFILE, fresh(f5), None)
            f5.state.certs["/Common/theirs.crt"] = theirs.chain.text.encode()
            f5.state.keys["/Common/theirs.key"] = theirs.key.reveal()
            f5.state.profiles[bigip_api.PROFILE][0] |= {
                "cert": "/Common/theirs.crt",
                "key": "/Common/theirs.key",
            }
            with pytest.raises(Conflict):
                one.activate(staged)
            with pytest.raises(Conflict):
                one.restore(staged)

        assert theirs.chain.fingerprint == f5.served()

    def test_the_other_certificate_of_a_profile_stays(self, f5: BigIp) -> None:
        """RSA and ECDSA side by side: the list is sent whole."""
        rsa = f5.ca.bundle(SITE, rsa_key=True)
        assert rsa.key is not None
        f5.state.certs["/Common/rsa.crt"] = rsa.chain.text.encode()
        f5.state.keys["/Common/rsa.key"] = rsa.key.reveal()
        other = {"name": "rsa", "cert": "/Common/rsa.crt", "key": "/Common/rsa.key"}
        other |= {"chain": "none", "appService": "none", "usage": "SERVER"}
        f5.state.profiles[bigip_api.PROFILE].append(other)
        with bigip(f5) as one:
            with pytest.raises(InvalidRequest) as caught:
                one.serving(PROFILE)
            assert "default, rsa" in caught.value.remedy

            site = Site(bigip_api.PROFILE, settings={"cert_key_chain": "default"})
            staged = one.stage(site, fresh(f5), None)
            one.activate(staged)

        assert f5.state.profiles[bigip_api.PROFILE][1] == other
        assert staged.fingerprint == f5.served()

    def test_an_account_that_may_only_look(self, f5: BigIp) -> None:
        """The device says 401, as for a wrong password; the remedy is another."""
        f5.guest = True
        with bigip(f5) as one, pytest.raises(PermissionRefused) as caught:
            one.stage(PROFILE, fresh(f5), None)

        assert "Administrator" in caught.value.remedy

    def test_the_standby_is_not_changed(self, f5: BigIp) -> None:
        """The next synchronisation would undo it."""
        f5.failover = "standby"
        with bigip(f5) as one:
            with pytest.raises(InvalidRequest) as caught:
                one.check()
            with pytest.raises(InvalidRequest):
                one.stage(PROFILE, fresh(f5), None)

        assert "active" in caught.value.remedy
        assert f5.state.uploads == {}

    def test_check_tells_of_a_group_that_is_not_synchronised(self, f5: BigIp) -> None:
        """Or of one that is not there."""
        with bigip(f5) as one:
            assert "set sync_group" in one.check()
        with bigip(f5, sync_group="nobody") as one, pytest.raises(NotFound) as caught:
            one.check()
        assert "/Common/pair" in caught.value.remedy

    def test_changes_of_others_go_along_where_that_is_wanted(self, f5: BigIp) -> None:
        """And the check tells that some wait."""
        f5.state.profiles["/Common/theirs"] = [dict(f5.state.profiles[bigip_api.PROFILE][0])]
        with bigip(f5, sync_group="pair", sync_pending=True) as one:
            assert "pair (Changes Pending)" in one.check()
            staged = one.stage(PROFILE, fresh(f5), None)
            one.activate(staged)
            assert "pair (In Sync)" in one.check()

        assert "/Common/theirs" in f5.synced.profiles

    def test_a_synchronisation_of_our_own_that_failed_is_made_up_for(self, f5: BigIp) -> None:
        """The changes that wait are ours: nobody else has to do anything."""
        with bigip(f5, sync_group="pair") as one:
            staged = one.stage(PROFILE, fresh(f5), None)
            f5.fault("POST", "/tm/cm$", reply=Reply(503, {"code": 503, "message": "busy"}))
            with pytest.raises(Busy):
                one.activate(staged)
            assert "Changes Pending" in one.check()

            one.activate(staged)

        assert f5.synced.profiles == f5.state.profiles

    @pytest.mark.parametrize("site", ["../x", "/Common/a b", "/Common/x?y", "/Common/../x", ""])
    def test_a_site_is_never_another_path(self, f5: BigIp, site: str) -> None:
        """It becomes part of an address."""
        with bigip(f5) as one, pytest.raises((InvalidRequest, NotFound)):
            one.serving(Site(site))


class TestNetScaler:
    """NetScaler ADC."""

    def test_the_block_opens_it(self, adc: NetScaler) -> None:
        """As a worker would, from stored settings."""
        block = NetScalerBlock(
            url=adc.url,
            username=netscaler_api.USER,
            password=SecretStr(netscaler_api.PASSWORD),
            ca_bundle=adc.roots,
        )
        with block.connect() as one:
            assert one.check().startswith("NetScaler NS13.1: Build 49.13.nc, primary, 2 ")

    def test_changes_of_others_are_told_before_they_are_saved(self, adc: NetScaler) -> None:
        """Saving takes them in; an account may be kept from seeing them."""
        with netscaler(adc) as one:
            assert "unsaved" not in one.check()
            adc.bindings["vs_new"] = netscaler_api.PAIR
            assert "unsaved changes" in one.check()
            adc.fault("GET", "/nsconfig$", reply=Reply(403, {"errorcode": 2138, "message": "No"}))
            assert one.check().endswith("certificate-key pairs")

            one.activate(one.stage(PAIR, fresh(adc), None))
            assert "unsaved" not in one.check()

    def test_an_issuer_that_is_there_is_used(self, adc: NetScaler) -> None:
        """The appliance takes no certificate twice."""
        with netscaler(adc) as one:
            staged = one.stage(PAIR, fresh(adc), None)
            one.activate(staged)

        assert adc.certkeys[netscaler_api.PAIR]["linkcertkeyname"] == "ica"
        assert not [name for name in adc.certkeys if name.startswith("certrail_ca_")]

    def test_a_new_issuer_is_made_linked_and_taken_back(self, adc: NetScaler) -> None:
        """The CA changed its intermediate; the old link comes back with the old certificate."""
        before = adc.snapshot()
        bundle = TestCa().bundle(SITE)
        with netscaler(adc) as one:
            staged = one.stage(PAIR, bundle, None)
            one.activate(staged)
            issuer = adc.certkeys[netscaler_api.PAIR]["linkcertkeyname"]
            assert issuer.startswith("certrail_ca_")
            assert bundle.chain.text == adc.live()[0]

            one.restore(staged)
            one.discard(staged)

        assert before == adc.snapshot()

    def test_refused_with_another_issuer_leaves_the_old_chain(self, adc: NetScaler) -> None:
        """Unlinked for the change, linked again after it failed."""
        with netscaler(adc) as one:
            staged = one.stage(PAIR, TestCa().bundle(SITE), None)
            adc.files[f"{staged.data['stem']}.key"] = b"-----BEGIN PRIVATE KEY-----\nMA==\n"
            with pytest.raises(ActivationRefused):
                one.activate(staged)

        assert adc.certkeys[netscaler_api.PAIR]["linkcertkeyname"] == "ica"
        assert adc.old.chain.fingerprint == adc.served()

    def test_killed_between_the_files_and_the_link(self, adc: NetScaler) -> None:
        """The pair has the new certificate and no issuer: the next try links it."""
        bundle = TestCa().bundle(SITE)
        with netscaler(adc) as one:
            staged = one.stage(PAIR, bundle, None)
            real = one._link
            calls: list[str] = []

            def once(name: str, issuer: str) -> None:
                calls.append(issuer)
                if len(calls) == 2:
                    raise Unreachable("killed here")
                real(name, issuer)

            one._link = once  # type: ignore[method-assign]
            with pytest.raises(Unreachable):
                one.activate(staged)
            assert "linkcertkeyname" not in adc.certkeys[netscaler_api.PAIR]
        with netscaler(adc) as one:
            one.activate(staged)

        assert bundle.chain.text == adc.live()[0]
        assert adc.saved == adc.configuration()

    def test_a_new_pair_is_bound_and_taken_back(self, adc: NetScaler) -> None:
        """A virtual server that never had a certificate."""
        before = adc.snapshot()
        site = Site("new_pair", settings={"vserver": "vs_new"})
        with netscaler(adc) as one:
            assert one.serving(site) is None
            staged = one.stage(site, fresh(adc), None)
            one.activate(staged)
            assert adc.bindings["vs_new"] == "new_pair"
            assert one.serving(site) == staged.fingerprint
            assert [s.tls for s in one.sites() if s.id == "new_pair"] == [True]

            one.restore(staged)
            one.discard(staged)

        assert before == adc.snapshot()

    def test_a_pair_that_is_not_there(self, adc: NetScaler) -> None:
        """A name typed wrong does not make a new object."""
        with netscaler(adc) as one, pytest.raises(NotFound) as caught:
            one.stage(Site("typo"), fresh(adc), None)

        assert "vserver" in caught.value.remedy

    def test_the_secondary_is_not_changed(self, adc: NetScaler) -> None:
        """It gets its configuration from the primary."""
        adc.nodes = [{"id": "0", "state": "Secondary"}, {"id": "1", "state": "Primary"}]
        with netscaler(adc) as one, pytest.raises(InvalidRequest) as caught:
            one.check()

        assert "primary" in caught.value.remedy

    def test_an_account_that_may_only_look(self, adc: NetScaler) -> None:
        """Names what it has to be allowed."""
        adc.read_only = True
        with netscaler(adc) as one, pytest.raises(PermissionRefused) as caught:
            one.stage(PAIR, fresh(adc), None)

        assert "sslcertkey" in caught.value.remedy

    def test_old_files_go_and_those_of_others_stay(self, adc: NetScaler) -> None:
        """Keys that nobody serves must not lie around."""
        for _ in range(3):
            with netscaler(adc) as one:
                staged = one.stage(PAIR, fresh(adc), None)
                one.activate(staged)
                one.discard(staged)

        stem = str(staged.data["stem"])
        assert set(adc.files) == {"old.crt", "old.key", "ica.crt", f"{stem}.crt", f"{stem}.key"}

    def test_a_long_name_fits(self, adc: NetScaler) -> None:
        """A file name has 63 characters at the most."""
        site = Site("p" * 127, settings={"vserver": "vs_new"})
        with netscaler(adc) as one:
            one.stage(site, fresh(adc), None)

        assert max(map(len, adc.files)) <= 63

    @pytest.mark.parametrize("site", ["../x", "-x", "a/b", "a?b", "", "a\nb"])
    def test_a_site_is_never_another_path(self, adc: NetScaler, site: str) -> None:
        """It becomes part of an address."""
        with netscaler(adc) as one, pytest.raises(InvalidRequest):
            one.serving(Site(site))


class TestA10:
    """A10 Thunder."""

    def test_the_block_ends_its_session(self, thunder: A10) -> None:
        """A device has room for few."""
        block = A10Block(
            url=thunder.url,
            username=a10_api.USER,
            password=SecretStr(a10_api.PASSWORD),
            ca_bundle=thunder.roots,
        )
        with block.connect() as one:
            assert one.check() == "ACOS 5.2.1-p6, 1 client-SSL templates"
            assert len(thunder.sessions) == 1

        assert not thunder.sessions

    def test_an_old_version_is_refused(self, thunder: A10) -> None:
        """Before 5.2 certificate and key are changed one after the other."""
        thunder.version = "4.1.4-GR1-P5, build 81"
        with a10(thunder) as one, pytest.raises(InvalidRequest) as caught:
            one.stage(TEMPLATE, fresh(thunder), None)

        assert "5.2" in caught.value.remedy

    def test_a_change_that_was_not_made_is_noticed(self, thunder: A10) -> None:
        """The device says yes, and the list is what it was."""
        with a10(thunder) as one:
            staged = one.stage(TEMPLATE, fresh(thunder), None)
            thunder.fault("PUT", "/certificate$", reply=Reply(200, {}))
            with pytest.raises(ActivationRefused):
                one.activate(staged)

    def test_a_failure_with_status_200(self, thunder: A10) -> None:
        """The answer's own status decides."""
        with a10(thunder) as one:
            staged = one.stage(TEMPLATE, fresh(thunder), None)
            error = {"response": {"status": "fail", "err": {"code": 1, "msg": "cannot do that"}}}
            thunder.fault("PUT", "/certificate$", reply=Reply(200, error))
            with pytest.raises(ActivationRefused, match="cannot do that"):
                one.activate(staged)

    def test_the_other_certificate_of_a_template_stays(self, thunder: A10) -> None:
        """RSA and ECDSA side by side; afterwards ours is found by its name."""
        rsa = thunder.ca.bundle(SITE, rsa_key=True)
        assert rsa.key is not None
        thunder.certs["rsa"], thunder.keys["rsa"] = rsa.chain.text.encode(), rsa.key.reveal()
        thunder.templates[a10_api.TEMPLATE].append({"cert": "rsa", "key": "rsa"})
        with a10(thunder) as one:
            with pytest.raises(InvalidRequest) as caught:
                one.serving(TEMPLATE)
            assert "old, rsa" in caught.value.remedy

            site = Site(a10_api.TEMPLATE, settings={"cert": "old"})
            one.activate(one.stage(site, fresh(thunder), None))
            staged = one.stage(site, fresh(thunder), None)
            one.activate(staged)

        assert thunder.templates[a10_api.TEMPLATE][1] == {"cert": "rsa", "key": "rsa"}
        assert staged.fingerprint == thunder.served()

    def test_replaced_by_somebody_between_stage_and_activate(self, thunder: A10) -> None:
        """Their certificate stays."""
        theirs = fresh(thunder)
        assert theirs.key is not None
        with a10(thunder) as one:
            staged = one.stage(TEMPLATE, fresh(thunder), None)
            thunder.certs["t"], thunder.keys["t"] = theirs.chain.text.encode(), theirs.key.reveal()
            thunder.templates[a10_api.TEMPLATE] = [{"cert": "t", "key": "t"}]
            with pytest.raises(Conflict):
                one.activate(staged)
            with pytest.raises(Conflict):
                one.restore(staged)

        assert theirs.chain.fingerprint == thunder.served()

    def test_an_account_that_may_only_look(self, thunder: A10) -> None:
        """Names what it has to be allowed."""
        thunder.read_only = True
        with a10(thunder) as one, pytest.raises(PermissionRefused) as caught:
            one.stage(TEMPLATE, fresh(thunder), None)

        assert "slb" in caught.value.remedy

    def test_old_files_go_and_those_of_others_stay(self, thunder: A10) -> None:
        """Keys that nobody serves must not lie around."""
        for _ in range(3):
            with a10(thunder) as one:
                staged = one.stage(TEMPLATE, fresh(thunder), None)
                one.activate(staged)
                one.discard(staged)

        new = staged.data["new"]
        assert set(thunder.certs) == {"old", new["cert"], new["chain-cert"]}
        assert set(thunder.keys) == {"old", new["key"]}
