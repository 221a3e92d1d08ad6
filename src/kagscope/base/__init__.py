"""Errors, files, messages, provenance: what every room uses and none owns."""
