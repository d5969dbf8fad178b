"""The state of a host as text that can be compared: all that lasts, nothing that moves by itself."""

from __future__ import annotations

import re

from .host import Host

# Left out: counters, times, learned entries; who held the lock last; what config.json keeps of the YAML file, which it is
# made from anew whenever that has changed; empty directories. So are the lab's own nft tables and `slot…` cards, and IPv6
# link-local addresses with their routes, which follow from random MACs of internal ports.
_SCRIPT = r"""
echo '# open vswitch'
ovs-vsctl --timeout=10 \
    -- --columns=name,datapath_type,fail_mode,external_ids,other_config,protocols,controller,mirrors list Bridge \
    -- --columns=name,tag,trunks,vlan_mode,external_ids,other_config,qos list Port \
    -- --columns=name,type,options,mac,mtu_request,bfd,external_ids,other_config,ingress_policing_rate list Interface |
    sed 's/^$/-/'
bridges=$(ovs-vsctl --timeout=10 list-br | sort)
ports=
for bridge in $bridges; do
    echo "# flows of $bridge"
    ovs-ofctl --no-stats --names dump-flows "$bridge" | grep -v -e '^ *cookie=0xa[89ab]' -e 'reply (' | sort
    ports="$ports -- get Bridge $bridge name -- list-ports $bridge"
done
echo '# ports of each bridge'
ovs-vsctl --timeout=10 $ports
echo '# nft'
nft -s -t list ruleset
echo '# addresses'
ip -br -4 address | sort
ip -br -6 address | grep -v fe80 | sort
echo '# routes'
ip -4 route show table all | sort
ip -6 route show table all | grep -v -e fe80 -e ff00 | sort
echo '# rules'
ip -4 rule | sort
ip -6 rule
echo '# neighbours'
ip neigh show nud permanent | sort
echo '# sysctl'
cd /proc/sys/net
grep -s . ipv4/ip_forward ipv4/conf/[!ls]*/forwarding ipv4/conf/[!ls]*/rp_filter ipv4/conf/[!ls]*/accept_local \
    ipv4/conf/[!ls]*/send_redirects ipv6/conf/aws_*/disable_ipv6
cd /sys/class/net
grep -s . aws_gw/flags aws_gw/mtu aws_icmp/flags aws_icmp/mtu
echo '# files'
find /run/aws_ovs /var/lib/aws_ovs \( -type d -empty -o -name config.json \) -o -printf '%p %M %u:%g\n' | sort
find /run/aws_ovs /var/lib/aws_ovs -type f ! -name config.json ! -name lock | sort | xargs -r tail -v -n +1
"""


def dump(host: Host) -> str:
    """Open vSwitch's database and flows, the kernel's network, and the driver's files on a host."""
    text = host.run(["sh", "-c", _SCRIPT]).stdout
    text = re.sub(r"table \w+ lab_\w+ \{\n.*?\n\}\n", "", text, flags=re.DOTALL)
    text = re.sub(r"@if\d+", "", text)
    text = re.sub(r'"picks_up_until":\d+', '"picks_up_until":…', text)
    # Port numbers depend on what there was before, and with them the order in which a flood serves the ports.
    text = re.sub(r"output:[^, ]+(,output:[^, ]+)+", lambda found: ",".join(sorted(found[0].split(","))), text)
    head, mark, rest = text.partition("# flows of")
    return _sorted_records(head) + mark + rest


def _sorted_records(text: str) -> str:
    """Open vSwitch lists records in no order."""
    title, *records = re.split(r"\n(?=name +:)", text)
    return "\n".join([title, *sorted(record.strip("-\n") for record in records)]) + "\n"
