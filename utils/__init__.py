"""Reference implementations that the notebooks import, one idea per module."""
