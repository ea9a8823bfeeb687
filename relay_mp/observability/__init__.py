"""Exporters: subscribers that take the stream out of the process. One format a file."""
