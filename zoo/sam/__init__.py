"""SAM's prompt encoder and mask decoder, and prediction in 2D and 3D."""
