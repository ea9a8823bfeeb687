"""A directory that `relay-mp run` puts first on PYTHONPATH, for its `sitecustomize`; not a package to import."""
