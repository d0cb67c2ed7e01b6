"""A region's gateway: it fans assignments out to devices and carries their updates to central."""
