"""Branch-Train-Merge as a Git workflow: seed, branch, train, evaluate, ensemble, merge."""
