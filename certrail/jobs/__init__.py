"""Bulk jobs, decided: who takes part, in which order, how fast, and when to stop. No I/O."""
