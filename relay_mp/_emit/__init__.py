"""The emitting half: runs in every process."""
