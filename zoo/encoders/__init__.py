"""Image encoders: one file per family, each registering itself."""
