"""The node's kernel network: the ENI, its MTU and addresses, and the static way between ENI and overlay."""
