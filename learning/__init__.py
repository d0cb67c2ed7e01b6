"""What central and devices both need to learn: models and data."""
