"""Commands for those who work on the library. They are not installed with it."""
