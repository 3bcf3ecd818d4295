"""Curves, tables and pages from a search's recorded results. Reads what the loop wrote; never talks to a service."""
