"""From utterances to batches."""
