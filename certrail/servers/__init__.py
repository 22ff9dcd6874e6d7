"""Programs that serve certificates: how each is configured, tested and reloaded."""
