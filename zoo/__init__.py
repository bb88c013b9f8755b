"""Model zoo: interchangeable image encoders behind one SAM interface, and how they run."""
