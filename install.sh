#!/bin/bash
# Installs and removes the aws_ovs network driver. Every step looks first and changes only what differs, files appear by
# rename, and a Python environment is put in use only when it is complete: it may be killed at any instant and run again.
set -euo pipefail
umask 022
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

SOURCE=$(cd "$(dirname "$0")" && pwd -P)
PYTHON=/usr/bin/python3
LIB=/usr/lib/aws_ovs
PROGRAM=/usr/sbin/aws-ovs
ONEAWS=/usr/bin/oneaws
SUDOERS=/etc/sudoers.d/aws_ovs
SYSCTL=/etc/sysctl.d/60-aws_ovs.conf
TMPFILES=/usr/lib/tmpfiles.d/aws_ovs.conf
STATE=/var/lib/aws_ovs
RUN=/run/aws_ovs
ONED_CONF=/etc/one/oned.conf
REMOTES=/var/lib/one/remotes
DRIVER=$REMOTES/vnm/aws_ovs
HOOKS=$REMOTES/hooks/aws_ovs
PROBES=im/kvm-probes.d/host/system # below remotes; OpenNebula's qemu-probes.d is a link to kvm-probes.d
CONFIG=$REMOTES/etc/vnm/aws_ovs.yaml
SETTINGS=/etc/one/aws_ovs.yaml
SHIPPED=$LIB/aws_ovs.yaml # the two as they were installed last, to tell edited ones
SHIPPED_SETTINGS=$LIB/settings.yaml
SHARE=/usr/share/aws_ovs
KEPT=/var/lib/one/aws_ovs # what the front-end half remembers; it can all be found out again
UNITS=/usr/lib/systemd/system
TIMER=aws_ovs-reconcile.timer
ENABLED=/etc/systemd/system/timers.target.wants/$TIMER
VSWITCHD=ovs-vswitchd.service.d # what the driver adds to Open vSwitch's unit
WATCH=aws_ovs-watch.service
NETWORKD=/etc/systemd/networkd.conf.d
CLOUD_INIT=/etc/cloud/cloud.cfg.d
ALIASES=ec2net_alias.conf # with which amazon-ec2-net-utils gives the host the addresses of its VMs
COMPLETIONS=/usr/share/bash-completion/completions
BACKUP=$ONED_CONF.before-aws_ovs

usage() {
    cat <<END
Usage: install.sh --frontend | --node | --uninstall [--frontend] [--node]   [--dry-run]

  --frontend   on the OpenNebula front-end: the driver's scripts, hooks, probe and configuration among OpenNebula's
               remotes, $SETTINGS, the command oneaws and its timer, and the driver's lines in
               $ONED_CONF
  --node       on a KVM host: $PROGRAM, its sudoers rule and directories, and the units that restore flows
  --uninstall  remove what is installed, or only the part named; edited configurations stay, and so do the hooks in
               OpenNebula, which 'oneaws hooks remove' removes before
  --dry-run    print each change, make none
  --help       print this text

Both parts may be on one machine. Nothing is started now but $WATCH, and stopped when removed are only that
and the timer.
Python packages come from where pip is configured to find them (PIP_INDEX_URL, PIP_NO_INDEX and PIP_FIND_LINKS are honoured).
END
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

CHANGES=0
change() { # DESCRIPTION COMMAND...: every change to the machine goes through here
    CHANGES=$((CHANGES + 1))
    if [[ -n $DRY_RUN ]]; then
        echo "would $1"
    else
        echo "==> $1"
        "${@:2}"
    fi
}

own_all() { # DIRECTORY USER: what others have left in a directory of his, which he could not change; all of it can be found out again
    local others
    [[ -d $1 ]] || return 0
    others=$(find "$1" -mindepth 1 -maxdepth 1 ! -user "$2" -type f -printf '%f ')
    # Not given to him: a file with a second name elsewhere would be his there, too.
    [[ -z $others ]] || change "remove what is not $2's from $1: ${others% }" find "$1" -mindepth 1 -maxdepth 1 ! -user "$2" -type f -delete
}

owned() { [[ $(stat -c '%a %U %G' "$1" 2>/dev/null) == "$2 ${3/:/ }" ]]; } # PATH MODE USER:GROUP

directory() { # PATH MODE USER:GROUP
    if [[ ! -d $1 ]] || ! owned "$@"; then
        change "make directory $1" install -d -m "$2" -o "${3%:*}" -g "${3#*:}" "$1"
    fi
}

put() { # FROM TO MODE USER:GROUP
    if [[ ! -f $2 || -L $2 ]] || ! cmp -s "$1" "$2" || ! owned "${@:2}"; then
        change "install $2" _put "$@"
    fi
}

_put() {
    install -m "$3" -o "${4%:*}" -g "${4#*:}" "$1" "$2.aws_ovs-new"
    mv -fT "$2.aws_ovs-new" "$2"
}

link() { # TARGET LINK
    [[ $(readlink "$2") == "$1" ]] || change "link $2 to $1" _link "$@"
}

_link() {
    ln -sfnT "$1" "$2.aws_ovs-new"
    mv -fT "$2.aws_ovs-new" "$2"
}

put_all() { # FROM TO MODE USER:GROUP: the files of a directory, without those of directories in it, into another
    local file
    for file in "$1"/*; do [[ -d $file ]] || put "$file" "$2/${file##*/}" "${@:3}"; done
}

drop() { # PATH...: files, or links
    local path
    for path; do
        [[ ! -e $path && ! -L $path ]] || change "remove $path" rm -f "$path"
        [[ ! -e $path.aws_ovs-new ]] || change "remove $path.aws_ovs-new" rm -f "$path.aws_ovs-new"
    done
}

drop_all() { # FROM TO: what put_all brings
    local file
    for file in "$1"/*; do [[ -d $file ]] || drop "$2/${file##*/}"; done
}

drop_empty() { # DIRECTORY WHAT: a directory, unless it still holds something
    [[ -d $1 ]] || return 0
    if [[ -z $(find "$1" -mindepth 1 -print -quit) || -n $DRY_RUN ]]; then
        change "remove $1${DRY_RUN:+ if it is empty by then}" rmdir "$1"
    else
        echo "left: $1, which holds $2; remove it with: rm -r $1"
    fi
}

# The Python environment, which both parts share. Each release has one of its own, at a path that is final from the beginning
# (scripts in it name the path), and the link says which is in use.
environment() {
    local extras="" version wanted previous old
    [[ -z $ENVIRONMENT ]] || return 0
    ENVIRONMENT=yes
    [[ -z $FRONTEND && ! -L $ONEAWS ]] || extras=frontend
    version=$($PYTHON -IS -c 'import sys; print(*sys.version_info[:3])')
    wanted=venv-$({
        echo "$version $extras"
        cd "$SOURCE" && find setup.py pyproject.toml vnm_aws -name '*.py' -o -name '*.toml' | sort | xargs sha256sum
    } | sha256sum | cut -c1-12)
    directory "$LIB" 755 root:root
    [[ -e $LIB/$wanted/complete ]] || change "make the Python environment $LIB/$wanted (takes some seconds)" _environment "$wanted" "$extras"
    previous=$(readlink "$LIB/venv" || true)
    link "$wanted" "$LIB/venv"
    for old in "$LIB"/venv-*; do
        # The one that was in use until now stays until the next time: actions under way still import from it.
        [[ ! -e $old || $previous == "$wanted" || $old == "$LIB/$wanted" || $old == "$LIB/$previous" ]] || change "remove $old" rm -rf "$old"
    done
}

_environment() { # NAME EXTRAS
    local home=$LIB/$1 log=$LIB/$1/pip.log
    rm -rf "$home"
    $PYTHON -I -m venv "$home"
    # A copy, because pip would leave its build in the checkout, and build with what an earlier one left there.
    mkdir "$home/source"
    (cd "$SOURCE" && cp setup.py pyproject.toml README.md LICENSE "$home/source" && cp -rP vnm_aws "$home/source")
    if ! "$home/bin/python" -I -m pip install --disable-pip-version-check "$home/source${2:+[$2]}" >"$log" 2>&1; then
        fail "pip cannot install the driver's Python packages ($(grep '^ERROR' "$log" | tail -n 1)); give this machine access to a package index; all of pip's output is in $log"
    fi
    rm -rf "$home/source" "$log"
    touch "$home/complete"
}

drop_environment() { # unless the other part is there and stays
    [[ -n $NODE || ! -e $PROGRAM ]] && [[ -n $FRONTEND || ! -L $ONEAWS ]] && [[ -d $LIB ]] || return 0
    change "remove $LIB" rm -rf "$LIB"
}

# The attributes that must reach a NIC, and those that only administrators may set, of a VM's NICs and of networks: oned
# lets a value in a user's own template win over the network's, and users own networks (reservations). docs/security.md
# says of each what it is restricted for.
INHERITED="AWS_PRIVATE_IP AWS_ALLOCATION_ID EXTERNAL_IP AWS_VPC_ACCESS AWS_RAW_ETHERNET MTU GATEWAY DNS FILTER_IP_SPOOFING FILTER_MAC_SPOOFING"
RESTRICTED="AWS_PRIVATE_IP AWS_ALLOCATION_ID EXTERNAL_IP AWS_VPC_ACCESS AWS_RAW_ETHERNET GATEWAY DNS FILTER_IP_SPOOFING FILTER_MAC_SPOOFING"
RESTRICTED_VM="$RESTRICTED EXTERNAL_PORT_RANGE INTERNAL_PORT_RANGE IP6_LINK IP6_ULA IP6_GLOBAL TARGET ATTACH VLAN_ID"
RESTRICTED_VNET="$RESTRICTED AWS_EIP_POOL AWS_EIP_RESERVATION PORT_START PORT_SIZE"

oned_lines() { # FILE: the lines that it lacks
    local active attribute place
    active=$(sed -E 's/^[[:blank:]]*#.*//' "$1")
    lacks() { ! grep -qE "^[[:blank:]]*$1[[:blank:]]*=[[:blank:]]*\"$2\"" <<<"$active"; }
    if ! tr '\n' ' ' <<<"$active" | grep -qE 'VN_MAD_CONF[[:blank:]]*=[[:blank:]]*\[[^]]*NAME[[:blank:]]*=[[:blank:]]*"aws_ovs"'; then
        echo 'VN_MAD_CONF = [ NAME = "aws_ovs", BRIDGE_TYPE = "openvswitch" ]'
    fi
    for attribute in $INHERITED; do
        ! lacks INHERIT_VNET_ATTR "$attribute" || echo "INHERIT_VNET_ATTR = \"$attribute\""
    done
    for attribute in $RESTRICTED_VM; do
        for place in NIC/ NIC_ALIAS/ NIC_DEFAULT/; do
            ! lacks VM_RESTRICTED_ATTR "$place$attribute" || echo "VM_RESTRICTED_ATTR = \"$place$attribute\""
        done
    done
    for attribute in $RESTRICTED_VNET; do
        for place in "" AR/; do
            ! lacks VNET_RESTRICTED_ATTR "$place$attribute" || echo "VNET_RESTRICTED_ATTR = \"$place$attribute\""
        done
    done
}

oned_conf() { # install or remove: the marked lines
    local file marks rest lines
    file=$(readlink -f "$ONED_CONF")
    marks=$(grep -oE '^# (BEGIN|END) aws_ovs' "$file" || true)
    case $marks in
    "" | $'# BEGIN aws_ovs\n# END aws_ovs') ;;
    *) fail "$ONED_CONF: the lines '# BEGIN aws_ovs' and '# END aws_ovs' are not one pair; repair them by hand" ;;
    esac
    rest=$(mktemp) lines=$(mktemp)
    sed '/^# BEGIN aws_ovs/,/^# END aws_ovs/d' "$file" >"$rest"
    if [[ $1 == install ]]; then
        oned_lines "$rest" >"$lines"
        if [[ -s $lines ]]; then
            [[ -z $(tail -c 1 "$rest") ]] || echo >>"$rest"
            {
                echo "# BEGIN aws_ovs (install.sh replaces these lines; install.sh --uninstall removes them)"
                cat "$lines"
                echo "# END aws_ovs"
            } >>"$rest"
        fi
    fi
    if [[ $1 == install ]] && ! cmp -s "$rest" "$file"; then
        [[ -e $BACKUP ]] || change "keep $ONED_CONF as $BACKUP" _copy "$file" "$file" "$BACKUP"
        change "put the driver's lines into $ONED_CONF" _copy "$rest" "$file" "$file"
    elif [[ $1 == remove && -e $BACKUP && $(cat "$BACKUP") == "$(cat "$rest")" ]]; then
        change "put $ONED_CONF back as it was" mv -fT "$BACKUP" "$file"
    elif [[ $1 == remove ]]; then
        cmp -s "$rest" "$file" || change "remove the driver's lines from $ONED_CONF" _copy "$rest" "$file" "$file"
        [[ ! -e $BACKUP ]] || echo "left: $BACKUP, because $ONED_CONF has been edited since; remove it when you need it no more"
    fi
    rm -f "$rest" "$lines"
}

_copy() { # CONTENT LIKE TO: a file with the owner, mode and attributes of another, in one step
    cp -a "$2" "$3.aws_ovs-new"
    cat "$1" >"$3.aws_ovs-new"
    mv -fT "$3.aws_ovs-new" "$3"
}

configuration() { # NEW INSTALLED SHIPPED MODE USER:GROUP: an edited one is the administrator's
    local new=$1 installed=$2 shipped=$3
    if [[ ! -e $installed ]] || cmp -s "$installed" "$shipped" || cmp -s "$installed" "$new"; then
        put "$new" "$installed" "${@:4}"
    elif ! cmp -s "$new" "$shipped"; then
        put "$new" "$installed.new" "${@:4}"
        echo "kept: $installed, which has been edited; compare it with $installed.new"
    fi
    put "$new" "$shipped" 644 root:root
}

drop_configuration() { # INSTALLED SHIPPED
    drop "$1.new"
    if [[ ! -e $1 ]] || cmp -s "$1" "$2"; then
        drop "$1"
    else
        echo "left: $1, which has been edited; remove it with: rm $1"
    fi
    drop "$2"
}

remotes_directory() { # PATH USER:GROUP: below the remotes, with its parents; what is there is OpenNebula's
    local part path=$REMOTES
    for part in ${1//\// }; do
        path=$path/$part
        [[ -d $path ]] || directory "$path" 755 "$2"
    done
}

share() { # what oneaws and the administrator read: hook templates, network templates, the IAM policy
    local kind file
    directory "$SHARE" 755 root:root
    for kind in hooks vnet aws; do
        directory "$SHARE/$kind" 755 root:root
        put_all "$SOURCE/share/$kind" "$SHARE/$kind" 644 root:root
        for file in "$SHARE/$kind"/*; do
            [[ -e $SOURCE/share/$kind/${file##*/} ]] || drop "$file" # of an earlier version
        done
    done
}

units() { # PART: frontend or node
    local before=$CHANGES
    [[ -d $UNITS ]] || return 0
    put_all "$SOURCE/share/systemd/$1" "$UNITS" 644 root:root
    if [[ $1 == node ]]; then
        directory "$UNITS/$VSWITCHD" 755 root:root
        put_all "$SOURCE/share/systemd/node/$VSWITCHD" "$UNITS/$VSWITCHD" 644 root:root
    fi
    [[ $CHANGES == "$before" ]] || reload_units
}

drop_units() { # PART
    local before=$CHANGES
    if [[ $1 == node ]]; then
        drop_all "$SOURCE/share/systemd/node/$VSWITCHD" "$UNITS/$VSWITCHD"
        drop_empty "$UNITS/$VSWITCHD" "files that are not the driver's"
        [[ ! -e $UNITS/$WATCH || ! -d /run/systemd/system ]] || change "stop $WATCH" systemctl --quiet stop "$WATCH"
    else
        [[ ! -L $ENABLED || ! -d /run/systemd/system ]] || change "stop and disable $TIMER" systemctl --quiet disable --now "$TIMER"
        drop "$ENABLED"
    fi
    drop_all "$SOURCE/share/systemd/$1" "$UNITS"
    [[ $CHANGES == "$before" ]] || reload_units
}

reload_units() { [[ ! -d /run/systemd/system ]] || change "let systemd read its units again" systemctl daemon-reload; }

install_frontend() {
    local owner group
    [[ -f $ONED_CONF ]] || fail "$ONED_CONF is not there; install the OpenNebula front-end first, or say --node on a host"
    [[ -d $REMOTES ]] || fail "$REMOTES is not there; install the OpenNebula front-end first"
    group=$(id -gn oneadmin) owner=oneadmin:$group
    command -v ssh >/dev/null || echo "warning: ssh is not there, by which the hosts get their peers; run 'apt-get install openssh-client'" >&2
    environment
    link "$LIB/venv/bin/oneaws" "$ONEAWS"
    remotes_directory vnm "$owner"
    directory "$DRIVER" 755 "$owner"
    put_all "$SOURCE/remotes/vnm/aws_ovs" "$DRIVER" 755 "$owner"
    remotes_directory hooks "$owner"
    directory "$HOOKS" 755 "$owner"
    put_all "$SOURCE/hooks/aws_ovs" "$HOOKS" 755 "$owner"
    remotes_directory "$PROBES" "$owner"
    put "$SOURCE/remotes/$PROBES/aws_ovs.sh" "$REMOTES/$PROBES/aws_ovs.sh" 755 "$owner"
    remotes_directory etc/vnm "$owner"
    configuration "$SOURCE/remotes/etc/vnm/aws_ovs.yaml" "$CONFIG" "$SHIPPED" 644 "$owner"
    configuration "$SOURCE/share/etc/aws_ovs.yaml" "$SETTINGS" "$SHIPPED_SETTINGS" 640 "root:$group"
    directory "$KEPT" 750 "$owner"
    own_all "$KEPT" oneadmin
    share
    units frontend
    [[ ! -d $COMPLETIONS ]] || put "$SOURCE/share/bash-completion/oneaws" "$COMPLETIONS/oneaws" 644 root:root
    oned_conf install
    if [[ $CHANGES -gt 0 && -z $DRY_RUN ]]; then
        cat <<END
Now look at $SETTINGS, restart OpenNebula (systemctl restart opennebula), and as oneadmin run
'onehost sync -f' and 'oneaws hooks register'. Then, as root: systemctl enable --now $TIMER
END
    fi
}

install_node() {
    local tool
    for tool in ovs-vsctl:openvswitch-switch nft:nftables sudo:sudo; do
        command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is not there; run 'apt-get install ${tool#*:}'"
    done
    visudo -cqf "$SOURCE/share/sudoers/aws_ovs" || fail "sudo does not accept $SOURCE/share/sudoers/aws_ovs; restore that file"
    environment
    put "$SOURCE/share/sbin/aws-ovs" "$PROGRAM" 755 root:root
    directory "$STATE" 755 root:root
    directory "$RUN" 755 root:root
    put "$SOURCE/share/tmpfiles/aws_ovs.conf" "$TMPFILES" 644 root:root
    put "$SOURCE/share/sysctl/60-aws_ovs.conf" "$SYSCTL" 644 root:root
    put "$SOURCE/share/sudoers/aws_ovs" "$SUDOERS" 440 root:root
    others
    units node
    [[ $CHANGES == 0 || ! -d /run/systemd/system ]] || change "start $WATCH" systemctl --quiet restart "$WATCH"
}

others() { # what keeps the host's other tools from the driver's rule and routes, and from the addresses of VMs
    local eni
    [[ ! -d $CLOUD_INIT ]] || put "$SOURCE/share/cloud-init/aws_ovs.cfg" "$CLOUD_INIT/95-aws_ovs.cfg" 644 root:root
    [[ -d /etc/systemd ]] || return 0
    directory "$NETWORKD" 755 root:root
    put "$SOURCE/share/networkd/aws_ovs.conf" "$NETWORKD/aws_ovs.conf" 644 root:root
    for eni in $(enis); do
        directory "/etc/systemd/network/70-$eni.network.d" 755 root:root
        put "$SOURCE/share/networkd/$ALIASES" "/etc/systemd/network/70-$eni.network.d/$ALIASES" 644 root:root
    done
}

enis() { # the interface of the default route, and further ENIs
    local driver
    {
        ip -4 -o route show default | sed -nE '1s/.* dev ([^ ]+).*/\1/p'
        for driver in /sys/class/net/*/device/driver; do
            [[ $(readlink "$driver") != */ena ]] || basename "${driver%/device/driver}"
        done
    } | sort -u
}

drop_others() {
    local file
    drop "$CLOUD_INIT/95-aws_ovs.cfg" "$NETWORKD/aws_ovs.conf"
    drop_empty "$NETWORKD" "files that are not the driver's"
    for file in /etc/systemd/network/70-*.network.d/"$ALIASES"; do
        cmp -s "$SOURCE/share/networkd/$ALIASES" "$file" || continue
        drop "$file"
        drop_empty "${file%/*}" "files that are not the driver's"
    done
}

uninstall_frontend() {
    [[ ! -f $ONED_CONF ]] || oned_conf remove
    drop_units frontend
    [[ ! -d $HOOKS ]] || echo "left: the hooks in OpenNebula, if there are any; 'onehook list' shows them as aws_ovs-..., remove them with 'onehook delete'"
    drop_all "$SOURCE/hooks/aws_ovs" "$HOOKS"
    drop_empty "$HOOKS" "files that are not the driver's"
    drop "$REMOTES/$PROBES/aws_ovs.sh"
    drop_all "$SOURCE/remotes/vnm/aws_ovs" "$DRIVER"
    drop_empty "$DRIVER" "files that are not the driver's"
    drop_configuration "$CONFIG" "$SHIPPED"
    drop_configuration "$SETTINGS" "$SHIPPED_SETTINGS"
    [[ ! -d $SHARE ]] || change "remove $SHARE" rm -rf "$SHARE"
    [[ ! -d $KEPT ]] || change "remove $KEPT" rm -rf "$KEPT"
    drop "$COMPLETIONS/oneaws" "$ONEAWS"
}

uninstall_node() {
    drop_units node
    drop_others
    drop "$SUDOERS" "$PROGRAM" "$SYSCTL" "$TMPFILES"
    if [[ -n $(find "$RUN/vms" -type f -print -quit 2>/dev/null) ]]; then
        echo "left: $RUN, which holds the state of VMs that run here; remove it with: rm -r $RUN"
    elif [[ -d $RUN ]]; then
        change "remove $RUN" rm -rf "$RUN"
    fi
    drop_empty "$STATE" "the list of peers"
}

FRONTEND="" NODE="" UNINSTALL="" DRY_RUN="" ENVIRONMENT=""
for option; do
    case $option in
    --frontend) FRONTEND=yes ;;
    --node) NODE=yes ;;
    --uninstall) UNINSTALL=yes ;;
    --dry-run) DRY_RUN=yes ;;
    --help | -h) usage && exit ;;
    *) fail "'$option' is not an option; see install.sh --help" ;;
    esac
done
[[ -n $FRONTEND$NODE$UNINSTALL ]] || fail "say --frontend, --node or --uninstall; see install.sh --help"
[[ $(id -u) == 0 ]] || fail "this must run as root; run it with sudo"
exec 9<"$SOURCE/install.sh"
flock -n 9 || fail "another install.sh is at work; wait for it to end"

if [[ -n $UNINSTALL ]]; then
    [[ -n $FRONTEND$NODE ]] || FRONTEND=yes NODE=yes
    [[ -z $FRONTEND ]] || uninstall_frontend
    [[ -z $NODE ]] || uninstall_node
    drop_environment
else
    id oneadmin >/dev/null 2>&1 || fail "there is no user oneadmin; install OpenNebula's package for this machine's role first"
    [[ -x $PYTHON ]] || fail "$PYTHON is not there; run 'apt-get install python3-venv'"
    $PYTHON -IS -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$PYTHON is $($PYTHON --version), but 3.10 or newer is needed; use Debian 12 or newer"
    $PYTHON -I -c 'import ensurepip' 2>/dev/null || fail "Python cannot make virtual environments; run 'apt-get install python3-venv'"
    [[ -z $FRONTEND ]] || install_frontend
    [[ -z $NODE ]] || install_node
fi
if [[ $CHANGES == 0 ]]; then echo "Nothing to change."; fi
