"""The native half: the ring, the encoder, and their only binding (`core`). Runs in every process."""
