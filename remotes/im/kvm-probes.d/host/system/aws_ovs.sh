#!/bin/sh
# OpenNebula's monitoring runs this as oneadmin on every host and puts what it prints into the host's template. When a
# probe fails, or prints what is no template, all others count for nothing: so this one never does.
program=/usr/sbin/aws-ovs
[ -x "$program" ] || exit 0
if printed=$(sudo -n "$program" probe 2>&1 </dev/null); then
    # sudo may have warned, of a host name that does not resolve for one.
    printf '%s\n' "$printed" | grep '^AWS_OVS_[A-Z_]*="[^"]*"$'
else
    sentence=$(printf '%s\n' "$printed" | tail -n 1 | tr '"\\[]' "'/()" | tr -cd '[:print:]')
    case $sentence in *\;*) ;; *) sentence="$sentence; run 'install.sh --node' on this host again" ;; esac
    # OpenNebula keeps the last value of what does not come, and what this node knows of its peers is not known now.
    for key in PEERS_UP PEERS_DOWN MESH CONNECTIONS CONNECTIONS_FULL CONNECTIONS_DROPPED; do printf 'AWS_OVS_%s=""\n' "$key"; done
    printf 'AWS_OVS_TIME="%s"\nAWS_OVS_ERROR="%s"\n' "$(date +%s)" "$sentence"
fi
exit 0
