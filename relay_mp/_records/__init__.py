"""A record's view, compiled: its fields, its payloads as Python objects, and its line of JSON."""
