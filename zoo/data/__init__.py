"""Cases: reading medical images, and the built-in phantom."""
