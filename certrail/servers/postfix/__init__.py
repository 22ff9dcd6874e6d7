"""Postfix: the certificate of its SMTP server, for all services or one of master.cf."""

from certrail.servers.postfix.settings import PostfixSettings
from certrail.servers.postfix.target import PostfixTarget

__all__ = ["PostfixSettings", "PostfixTarget"]
