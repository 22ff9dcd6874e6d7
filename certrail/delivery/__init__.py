"""Delivery: storing a certificate where something else will use it."""
