"""Servers, appliances and services whose certificate is changed through an API."""
