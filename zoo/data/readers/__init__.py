"""Readers of files, one format family a file. Each refuses what is too large before it is inflated."""
