"""aws_ovs: an OpenNebula network driver for AWS bare-metal hosts."""

__version__ = "0.1.0"
