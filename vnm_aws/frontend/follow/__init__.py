"""Move private addresses to the ENI of the host where their VMs run, and their Elastic IPs with them.

`decide` says which moves that takes, `plans` prints them, `act` makes them, and `loop` looks again: a VM may move again
meanwhile, two VMs may claim one address (`conflicts`), EC2 may show what was. One AssignPrivateIpAddresses a host, none when
all is right. The outcome is on the VM: AWS_EIP_STATUS for people, AWS_EIP_HOST for the next decision, ERROR when it failed.
"""
