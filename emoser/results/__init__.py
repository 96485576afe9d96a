"""What predictions are, and how they are written and drawn."""
