"""Counts, durations, errors and losses for Prometheus to scrape (extra `prometheus`)."""
