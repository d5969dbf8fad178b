"""What the tests of the lab share."""
