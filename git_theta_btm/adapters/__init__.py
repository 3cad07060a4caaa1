"""Updates from files: adapters and other sources of new values, applied to models in the worktree."""
