"""Encoders, pooling and heads, joined as `EmotionModel`."""
