"""What ``fedfleet doctor`` examines: one module a group of checks, probing apart from judging."""
