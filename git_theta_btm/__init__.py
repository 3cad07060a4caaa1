"""Version machine-learning models parameter by parameter in Git.

``open`` and ``open_zarr`` read models from Python. Importing the package must stay free: the filters start with it on
every ``git status``.
"""

__version__ = "0.1.0"
__all__ = ["Checkpoint", "open", "open_zarr"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api
    from .zarr import exporting

    return getattr(exporting if name == "open_zarr" else api, name)
