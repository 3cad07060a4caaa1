"""Zarr: models as groups of arrays for other tools."""
