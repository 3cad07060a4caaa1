"""Checkout: model files in the worktree, written and taken away out of band."""
