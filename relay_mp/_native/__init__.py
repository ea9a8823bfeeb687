"""The native half: the ring, the encoder, and their only bindings. Runs in every process."""
