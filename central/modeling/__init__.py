"""Initial models, their evaluation and their export; imports torch."""
