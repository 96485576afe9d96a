"""Evaluation: metrics, calibration, reports, leakage and provenance."""
