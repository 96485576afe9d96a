"""From blocks of samples to scores, windows and segments."""
