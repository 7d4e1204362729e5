"""Clients: HTTP libraries that sign, pay and retry. Each is loaded through an entry point when it is used."""
