"""Dovecot: the certificate of its IMAP, POP3 and submission servers."""

from certrail.servers.dovecot.settings import DovecotSettings
from certrail.servers.dovecot.target import DovecotTarget

__all__ = ["DovecotSettings", "DovecotTarget"]
