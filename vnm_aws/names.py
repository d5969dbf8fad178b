"""Names and numbers that more than one room needs, each with the reason for it."""

from __future__ import annotations

OVERLAY = "aws_ovs"
"""The overlay bridge, which has the tunnels."""
GATEWAY_PORT = "aws_gw"
"""The overlay bridge's port to the node's kernel: the way between VMs and the ENI."""
REPAIR_PORT = "aws_icmp"
"""The overlay bridge's port that ICMP errors pass to have the packet repaired that they quote."""

ROLE = "aws_ovs"
"""The key of external_ids that marks what the driver owns: overlay, vnet, node, patch, tunnel or guest."""
PORT_KEY, NETWORK_KEY, CLAIMS_KEY, VNET_KEY = "aws_ovs-port", "aws_ovs-network", "aws_ovs-claims", "aws_ovs-vnet"
"""The keys that say which NIC (`VM/NIC`) and network (`BRIDGE/VNI`) a port is of, what its guest claims, and which
NETWORK_ID OpenNebula gives the network."""
SWITCH_KEY = "aws_ovs-switch"
"""The key that says what the other ports of a network must know of a port: see guest_port.Member."""
SLOT_KEY = "aws_ovs-slot"
"""The key of the number that a guest port has on its node."""
SIDE_KEY, PEER_KEY = "aws_ovs-on", "aws_ovs-peer"
"""The keys that say on which bridge a patch port is, and to which peer a tunnel leads."""

RUN, KEPT = "/run/aws_ovs", "/var/lib/aws_ovs"
"""Directories for what a reboot ends, and for what it does not."""

PEER_LIST = f"{KEPT}/peers.json"
"""What the front-end has told this node."""
PEER_LIST_LIMIT = 4 << 20
"""Bytes of it: more than a VPC full of VMs needs."""

STAND_INS = f"{KEPT}/stand_ins.json"
"""What stands on this node for private addresses of other subnets, as the front-end has told it."""

VXLAN_PORT = 4789
"""UDP port of the tunnels: the one that IANA gave to VXLAN."""
CT_ZONE = VXLAN_PORT
"""The zone of connection tracking for addresses that are shared by ports. Any number that no other program has would
do: by this one an administrator recognises the driver in `conntrack -L -w 4789`."""
ANSWERS_ZONE = CT_ZONE + 1
"""The zone of connection tracking for who has come to a guest from private addresses, and may be answered."""
NIC_ZONES = 16384
"""The zones of connection tracking of NICs with security groups come after this one, in the order of their slots."""
MOST_SLOTS = 65535 - NIC_ZONES
ROUTE_TABLE = VXLAN_PORT
"""Table of the route to the VMs. Nobody else has reason to take this number, and whoever sees it thinks of VXLAN."""
RULE_PRIORITY = VXLAN_PORT
"""Priority of the rule that leads to ROUTE_TABLE: behind table `local` (0), so that the node keeps its own addresses,
and before table `main` (32766), which knows the VMs' addresses as neighbours on the ENI."""
MOST_ENIS = 64
"""Of a node. Where there are several, ENI number n has the table ROUTE_TABLE + n, and packets that leave by it that mark."""
ENI_MAC = "02:a5:0e:00:01:{:02x}"
"""The MAC from which a packet for ENI number n comes to the node's kernel: it tells the kernel what no mark of Open vSwitch's
userspace datapath would. The first ENI has number 1, and none such MAC."""

# Attributes of OpenNebula's objects. Of a host: what its template says of its instance.
INSTANCE_ID, INSTANCE_TYPE, INSTANCE_STATE = "EC2_INSTANCE_ID", "EC2_INSTANCE_TYPE", "EC2_INSTANCE_STATE"
ZONE, SUBNET_ID, ENI_ID, VTEP = "EC2_AZ", "EC2_SUBNET_ID", "EC2_ENI_ID", "VXLAN_TEP"
TERMINATED = "terminated"
"""The EC2_INSTANCE_STATE of a host whose instance is no more."""

VIRTUALIZATION = "EC2_VIRTUALIZATION"
"""Whether a host can run KVM guests with the processor's help: metal, nested, or none."""

ENDING = "EC2_ENDING"
"""When and why AWS is going to end the instance of a host; empty when it is not."""

ENI_IDS = "EC2_ENI_IDS"
"""All ENIs of a host that have addresses of VMs, that of EC2_ENI_ID first; empty when that is the only one."""

FREE_ADDRESSES = "EC2_FREE_ADDRESSES"
"""How many more private addresses of VMs the ENIs of a host can have; the scheduler reads it."""

HOST_STAND_INS = "EC2_STAND_INS"
"""What stands on a host for private addresses of other subnets: `10.0.0.41=10.0.2.77 …`."""

# Of a host: what its own probe reports.
MESH = "AWS_OVS_MESH"
"""The digest of the peer list that the host has: of one without peers when it has none, or cannot read it."""
HOST_TIME = "AWS_OVS_TIME"
"""When the probe ran, in seconds since 1970, by the host's clock."""

PEERS_UP, PEERS_DOWN = "AWS_OVS_PEERS_UP", "AWS_OVS_PEERS_DOWN"
HOST_MTU, HOST_VERSION, HOST_ERROR = "AWS_OVS_GUEST_MTU", "AWS_OVS_VERSION", "AWS_OVS_ERROR"

# Of a network.
POOL = "AWS_EIP_POOL"
"""The tags of the Elastic IPs of a network that is a pool."""
RESERVATION = "AWS_EIP_RESERVATION"
"""The subnet CIDR reservations, by their ids, from which a pool takes its private addresses."""

NETWORK_PROBLEM = HOST_ERROR
"""What is wrong with a network, for people. The front-end writes it, and empties it when all is right."""

# Of an address range, and of a NIC or alias that has an address of it.
ALLOCATION_ID, EXTERNAL_IP, PRIVATE_IP = "AWS_ALLOCATION_ID", "EXTERNAL_IP", "AWS_PRIVATE_IP"

# Of a network, and of a NIC in it: what its guests may do beyond the usual.
FILTER_MAC, FILTER_IP = "FILTER_MAC_SPOOFING", "FILTER_IP_SPOOFING"
"""NO: guests may send from other MACs, from other addresses."""

VPC_ACCESS = "AWS_VPC_ACCESS"
"""Which private addresses guests may reach outside their network: NO, YES or prefixes."""

RAW_ETHERNET = "AWS_RAW_ETHERNET"
"""YES: guests may send frames that are not those of a usual host: VLAN tags, router advertisements, DHCP answers."""

RESTRICTED = (
    *(PRIVATE_IP, ALLOCATION_ID, EXTERNAL_IP, VPC_ACCESS, RAW_ETHERNET),
    *(FILTER_IP, FILTER_MAC, "GATEWAY", "DNS"),
)
"""What only administrators may set in VMs and networks, or users would take addresses of others and open what is closed.
install.sh restricts more."""

INHERITED = (*RESTRICTED, "MTU")
"""What NICs must get of their networks: INHERITED of install.sh."""

# Of a VM.
EIP_STATUS = "AWS_EIP_STATUS"
"""What became of the addresses of a VM, for people. Nothing reads it back."""

EIP_HOST = "AWS_EIP_HOST"
"""The ID of the host where the private addresses of a VM were brought last; empty when that is not known."""

ERROR = "ERROR"
