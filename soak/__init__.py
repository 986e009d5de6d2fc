"""Long runs that measure what tests cannot: `python -m soak.archive`, `python -m soak.year`."""
