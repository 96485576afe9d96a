"""The version of emoser, which the package metadata reads as well."""

__version__ = "0.1.0"
