"""What is shown of the whole: the dashboard, and reports in the formats people ask for."""
