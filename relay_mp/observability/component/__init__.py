"""All exporters of a session from one configuration: the plugin of kind "observability".

config.py        the document: `ObservabilityConfig`, one field for each format
reading.py       from JSON to a format's section, and what is wrong with it on the way
component.py     the plugin: reads, checks, and registers what the sections stand for
destinations.py  what only all exporters together show: two that write one file
section.py       the section `exporters`: any exporter by its kind
"""
