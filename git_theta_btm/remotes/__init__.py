"""Remotes: objects travel through git-lfs, and what must travel is found out from git."""
