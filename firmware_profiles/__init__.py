"""One YAML per hardware and firmware family: recognition, limits and defaults."""
