"""Making a candidate cheaper."""
