"""What is used of pypsrp; imported only where a session is opened."""

from pypsrp.complex_objects import ObjectMeta, PSInvocationState  # type: ignore[import-not-found, import-untyped, unused-ignore]
from pypsrp.powershell import PowerShell, RunspacePool  # type: ignore[import-not-found, import-untyped, unused-ignore]
from pypsrp.wsman import WSMan  # type: ignore[import-not-found, import-untyped, unused-ignore]

__all__ = ["ObjectMeta", "PSInvocationState", "PowerShell", "RunspacePool", "WSMan"]
