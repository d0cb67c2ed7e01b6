"""What a person can ask of a fleet; one module per group of verbs."""
