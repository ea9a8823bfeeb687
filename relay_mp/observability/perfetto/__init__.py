"""A run as a Chrome trace: who did what when, for Perfetto and chrome://tracing."""
