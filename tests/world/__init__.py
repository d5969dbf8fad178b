"""The worlds that the driver lives in: OpenNebula, EC2, the VPC, metal hosts and guests."""
