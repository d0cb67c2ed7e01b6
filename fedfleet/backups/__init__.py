"""Backups of central's and of a gateway's state, and the way back."""
