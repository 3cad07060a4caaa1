"""Migration: histories of plain or LFS-tracked models become histories of manifests, and back."""
