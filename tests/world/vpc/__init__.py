"""A VPC that forwards as AWS does, and the Internet behind it."""
