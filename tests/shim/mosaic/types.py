"""``mosaic.types.Struct``."""

from mosaic_like.types import Struct

__all__ = ["Struct"]
