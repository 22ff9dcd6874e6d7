"""Dashboard and reports, against a real PostgreSQL."""
