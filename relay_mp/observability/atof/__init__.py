"""The stream itself as JSON lines (ATOF 0.1): to files, or to HTTP receivers."""
