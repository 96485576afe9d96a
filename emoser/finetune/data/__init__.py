"""Training data: utterances, recordings, augmentation and batches."""
