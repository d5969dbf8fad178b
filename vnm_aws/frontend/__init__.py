"""Do the front-end half: metal hosts, the mesh, Elastic IP pools, and private addresses that follow their VMs."""
