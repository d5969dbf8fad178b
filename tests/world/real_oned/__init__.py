"""A real oned: the one that this machine has installed, with a configuration, a database and drivers of a test's own."""
