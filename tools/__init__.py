"""Programs over the core: `python -m tools.report`, `python -m tools.benchmark`, the exercises' checks."""
