"""Notifiers: what carries messages to people and programs."""
