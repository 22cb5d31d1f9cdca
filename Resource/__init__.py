"""Small trained weights that come with the package, as ``totalgen.resource``."""
