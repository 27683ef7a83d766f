"""``python -m mosaic_like`` is ``mrun``."""

from .launch.mrun import main

if __name__ == "__main__":
    main()
