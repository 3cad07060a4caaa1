"""Merging: experts on branches become one model."""
