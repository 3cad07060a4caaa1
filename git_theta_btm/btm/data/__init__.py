"""Domains of text: added, split, mixed, tokenised, and drawn from."""
