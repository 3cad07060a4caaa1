"""Version machine-learning models parameter by parameter in Git.

``open`` and ``open_zarr`` read models from Python, ``save`` commits one, ``ThetaCallback`` all that a Trainer of
transformers saves. Importing the package must stay free: the filters start with it on every ``git status``.
"""

__version__ = "0.1.0"
__all__ = ["Checkpoint", "ThetaCallback", "open", "open_zarr", "save"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    homes = {"ThetaCallback": ".btm.training.callback", "open_zarr": ".zarr.exporting", "save": ".saving"}
    home = homes.get(name, ".api")
    return getattr(import_module(home, __name__), name)
