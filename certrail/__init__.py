"""Certificate automation without an orchestrator: what the flows call."""

__version__ = "0.1.0"
