"""EC2 over HTTP: moto, corrected where it differs from EC2."""
