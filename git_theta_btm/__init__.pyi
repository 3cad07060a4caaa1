from .api import Checkpoint as Checkpoint
from .api import open as open
from .btm.training.callback import ThetaCallback as ThetaCallback
from .saving import save as save
from .zarr.exporting import open_zarr as open_zarr

__version__: str
