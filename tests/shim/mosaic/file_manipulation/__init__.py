"""``mosaic.file_manipulation.h5``."""
