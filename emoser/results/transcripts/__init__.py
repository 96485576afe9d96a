"""Turns of conversations from the files and objects of other programs."""
