"""Every connector: importing this package registers them with Prefect.

It is the ``prefect.collections`` entry point, so a fresh worker can load any
saved block.
"""

from __future__ import annotations

from blocks.ca.acme import AcmeCa
from blocks.ca.aws_pca import AwsPca
from blocks.ca.certcentral import CertCentral
from blocks.ca.command import CommandCa
from blocks.ca.digicert_one import DigicertOne
from blocks.ca.local import LocalAuthority
from blocks.ca.vault import VaultCa
from blocks.delivery.aws_secrets_manager import AwsSecretsManager
from blocks.delivery.azure_keyvault import AzureKeyVault
from blocks.delivery.http_put import HttpPut
from blocks.delivery.kubernetes import KubernetesSecret
from blocks.delivery.s3 import S3Bucket
from blocks.delivery.vault_kv import VaultKv
from blocks.dns.powerdns import PowerDns
from blocks.dns.rfc2136 import Rfc2136
from blocks.hosts.local import LocalMachine
from blocks.hosts.ssh import SshMachine
from blocks.notifiers.apprise import AppriseUrl
from blocks.notifiers.smtp import SmtpMail
from blocks.notifiers.webhook import Webhook
from blocks.targets.a10 import A10
from blocks.targets.aws import AwsCloudFront, AwsElb
from blocks.targets.azure_keyvault import AzureKeyVaultTarget
from blocks.targets.bigip import BigIp
from blocks.targets.caddy import CaddyAdmin
from blocks.targets.haproxy import HaproxyRuntime
from blocks.targets.iis import Iis
from blocks.targets.kubernetes import KubernetesTarget
from blocks.targets.netscaler import NetScaler
from blocks.targets.redis_server import RedisServer

__all__ = [
    "A10",
    "AcmeCa",
    "AppriseUrl",
    "AwsCloudFront",
    "AwsElb",
    "AwsPca",
    "AwsSecretsManager",
    "AzureKeyVault",
    "AzureKeyVaultTarget",
    "BigIp",
    "CaddyAdmin",
    "CertCentral",
    "CommandCa",
    "DigicertOne",
    "HaproxyRuntime",
    "HttpPut",
    "Iis",
    "KubernetesSecret",
    "KubernetesTarget",
    "LocalAuthority",
    "LocalMachine",
    "NetScaler",
    "PowerDns",
    "RedisServer",
    "Rfc2136",
    "S3Bucket",
    "SmtpMail",
    "SshMachine",
    "VaultCa",
    "VaultKv",
    "Webhook",
]
