"""A running fleet, hurt at random and then checked."""
