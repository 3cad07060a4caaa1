"""Evaluation: perplexity of commits on domains, kept in git."""
