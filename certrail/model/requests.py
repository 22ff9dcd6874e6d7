"""The words of a request: its workflow, its action, the key that it makes."""

from __future__ import annotations

from enum import StrEnum


class Workflow(StrEnum):
    """Which documented list of steps a request follows."""

    WEB_SERVER = "web-server"
    APPLIANCE = "appliance"
    DELIVERY = "delivery"


class Action(StrEnum):
    """What a request is for."""

    ENROLL = "enroll"
    RENEW = "renew"
    REISSUE = "reissue"
    REDEPLOY = "redeploy"
    ROLLBACK = "rollback"

    @property
    def obtains(self) -> bool:
        """Whether a certificate is asked for; otherwise one that is there is installed."""
        return self not in (Action.REDEPLOY, Action.ROLLBACK)


STARTED = tuple(action for action in Action if action is not Action.ROLLBACK)
"""Actions that are asked for by name; going back is asked of a request."""


class KeyAlgorithm(StrEnum):
    """Keys that Certrail makes."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
