"""What installs, upgrades and removes a program on a machine with systemd."""
