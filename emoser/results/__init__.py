"""Results: predictions and timelines, their formats and pictures."""
