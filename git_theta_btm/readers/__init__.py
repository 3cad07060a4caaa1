"""Readers of the syntax that several formats share: zip archives, pickles, NumPy headers.

A reader interprets bytes and nothing else: no name that it finds is ever opened as a path, imported or called.
"""
