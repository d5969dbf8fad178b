"""Guests, and the hypervisor that plugs them in."""
