"""AWS: certificates imported into Certificate Manager (ACM), and switched where they are used.

A certificate is imported as a new one instead of over the old one: importing over an
ARN changes every user of it at once, cannot change the kind of key, and "does not support
rollback to previously imported certificates". So a new ARN is what is staged, pointing to
it is the switch, and pointing to the old ARN takes it back.

Calls (AWS API references, November 2026): ACM "ImportCertificate", "ListCertificates",
"GetCertificate", "ListTagsForCertificate", "DeleteCertificate"; Elastic Load Balancing
"DescribeListeners", "DescribeListenerCertificates", "ModifyListener",
"AddListenerCertificates", "RemoveListenerCertificates"; CloudFront "GetDistribution",
"UpdateDistribution"; ACM user guide "Prerequisites for importing ACM certificates",
"Reimport a certificate"; CloudFront developer guide "Requirements for using SSL/TLS
certificates with CloudFront". Run against moto's server with stricter rules put before
it; AWS itself was not at hand.
"""

from __future__ import annotations

from blocks.targets.aws.cloudfront import AwsCloudFront, CloudFrontTarget
from blocks.targets.aws.elb import AwsElb, ElbTarget

__all__ = ["AwsCloudFront", "AwsElb", "CloudFrontTarget", "ElbTarget"]
