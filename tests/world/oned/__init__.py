"""A stand-in for oned that answers as the recordings do."""
