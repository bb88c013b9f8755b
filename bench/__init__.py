"""Measuring candidates: cost, latency and accuracy, written as raw records."""
