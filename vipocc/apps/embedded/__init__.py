"""Training of the small foundation models that lie in the package: `python -m vipocc.apps.embedded --help`."""
