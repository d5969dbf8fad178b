"""Open vSwitch: bridges, tunnels to the peers, and the OpenFlow pipeline."""
