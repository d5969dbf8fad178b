"""The verbs that OpenNebula and administrators call on a node."""
