"""Services for tests: with traps, with a device that is lost, with limits that are soon reached, soon started."""
