"""Catalog of weight cards and the small weights that ship."""
