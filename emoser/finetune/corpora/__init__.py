"""Readers of corpora: a folder or a table in, a list of utterances out.

Each reader owns the codes of its corpus; none decodes audio.
"""
