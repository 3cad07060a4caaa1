"""Training: the seed and the experts, each in its own worktree, each saved checkpoint a commit."""
