"""When a certificate is renewed, why, and in which order: pure functions, no clock and no I/O."""
