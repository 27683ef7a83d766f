"""The original's three verbs; what their files hold is ours."""

from mosaic_like.h5 import append, load
from mosaic_like.h5 import save as dump

__all__ = ["append", "dump", "load"]
