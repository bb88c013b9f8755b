"""Tables and plots from records; imports without torch."""
