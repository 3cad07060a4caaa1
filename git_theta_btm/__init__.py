"""Version machine-learning models parameter by parameter in Git.

Importing the package must stay free: the filters start with it on every ``git status``.
"""

__version__ = "0.1.0"
