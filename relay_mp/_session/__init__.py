"""A session's life: settings, creation, attachment of children, flush, statistics, close, recovery."""
