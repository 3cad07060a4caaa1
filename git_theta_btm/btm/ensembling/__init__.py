"""Ensembles: mixtures of experts by their posterior, without merging them."""
