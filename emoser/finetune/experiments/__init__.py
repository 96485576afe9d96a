"""Whole experiments: fine-tuning, cross-validation, reproduction."""
