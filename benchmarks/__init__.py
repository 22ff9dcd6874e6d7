"""What Certrail costs, measured against named baselines in one run."""
