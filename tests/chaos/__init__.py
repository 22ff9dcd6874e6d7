"""Whatever breaks on the way to the others: nothing is lost, doubled or leaked."""
