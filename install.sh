#!/bin/bash
# Installs the aws_ovs network driver; see --help.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIB=/usr/lib/aws_ovs
VENV=$LIB/venv
PROGRAM=/usr/sbin/aws-ovs
ONEAWS=/usr/bin/oneaws
SUDOERS=/etc/sudoers.d/aws_ovs
SYSCTL=/etc/sysctl.d/60-aws_ovs.conf
TMPFILES=/usr/lib/tmpfiles.d/aws_ovs.conf
REMOTES=/var/lib/one/remotes
CONFIGURATION=$REMOTES/etc/vnm/aws_ovs.yaml
ONED=/etc/one/oned.conf
BEGIN='# BEGIN aws_ovs'
END='# END aws_ovs'
INHERITED='AWS_PRIVATE_IP MTU GATEWAY DNS EXTERNAL_IP AWS_ALLOCATION_ID FILTER_MAC_SPOOFING FILTER_IP_SPOOFING'

dry=
changes=0

usage() {
    cat <<'END_OF_USAGE'
Usage: install.sh --frontend | --node | --uninstall [--frontend | --node] [--dry-run]

  --frontend   on the OpenNebula front-end: the driver's scripts and configuration for 'onehost sync', the oneaws
               command, and the driver's entries in /etc/one/oned.conf
  --node       on every KVM node: the root-owned program /usr/sbin/aws-ovs in a virtual environment of its own, the
               sudoers rule for oneadmin, kernel settings, directories
  --uninstall  remove what was installed here; an edited configuration and /var/lib/aws_ovs stay
  --dry-run    print the changes, make none
  --help       this text

It can be run again at any time; what is right already stays untouched. It starts and stops no service.
END_OF_USAGE
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# change TEXT COMMAND...: one change, said and done.
change() {
    echo "  $1"
    shift
    changes=$((changes + 1))
    [ -n "$dry" ] || "$@"
}

# put SOURCE TARGET MODE [OWNER]: a file in one step, when it is not the same already.
put() {
    local source=$1 target=$2 mode=$3 owner=${4:-root}
    if cmp -s "$source" "$target" && [ "$(stat -c '%a %U' "$target")" = "${mode#0} $owner" ]; then
        return
    fi
    change "write $target" place "$source" "$target" "$mode" "$owner"
}

place() {
    install -d -m 755 "$(dirname "$2")"
    install -m "$3" -o "$4" -g "$4" "$1" "$2.new~"
    mv -f "$2.new~" "$2"
}

# put_text TEXT TARGET MODE
put_text() {
    local file
    file=$(mktemp)
    printf '%s' "$1" >"$file"
    put "$file" "$2" "$3"
    rm -f "$file"
}

drop() {
    local target
    for target in "$@"; do
        if [ -e "$target" ] || [ -L "$target" ]; then
            change "remove $target" rm -rf "$target"
        fi
    done
}

# What the virtual environment is made from: the sources, and the extra that is asked for.
fingerprint() {
    (cd "$HERE" && find setup.py vnm_aws -name '*.py' -type f -print0 | sort -z | xargs -0 sha256sum && echo "$1") | sha256sum
}

build() {
    local extra=$1 source
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c pass 2>/dev/null || {
        rm -rf "$VENV"
        install -d -m 755 "$LIB"
        /usr/bin/python3 -m venv "$VENV" >/dev/null 2>&1 ||
            fail "python3 cannot make a virtual environment; install python3-venv"
    }
    # A copy, so that building leaves nothing in the checkout.
    source=$(mktemp -d)
    mkdir "$source/src"
    cp -r "$HERE/setup.py" "$HERE/pyproject.toml" "$HERE/vnm_aws" "$source/src"
    umask 022
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check --upgrade "$source/src$extra" ||
        { rm -rf "$source"; fail "pip could not install the driver and its packages; check the network"; }
    rm -rf "$source"
    "$VENV/bin/python" -m compileall -q "$VENV"/lib/python3*/site-packages || true
    fingerprint "$extra" >"$LIB/made-from.new~"
    mv "$LIB/made-from.new~" "$LIB/made-from" # last: without it the next run builds again
}

# environment [EXTRA]: both roles may share it, and extras add up.
environment() {
    local extra=$1
    [ -e "$LIB/frontend" ] && extra='[frontend]'
    if [ "$(cat "$LIB/made-from" 2>/dev/null)" != "$(fingerprint "$extra")" ]; then
        change "install the driver in $VENV (python packages: setup.py$extra)" build "$extra"
    fi
}

install_node() {
    echo "node:"
    command -v ovs-vsctl >/dev/null || fail "Open vSwitch is missing; install openvswitch-switch first"
    command -v nft >/dev/null || fail "nft is missing; install nftables first"
    command -v visudo >/dev/null || fail "sudo is missing; install sudo first"
    id oneadmin >/dev/null 2>&1 || fail "there is no user oneadmin; install opennebula-node-kvm first"
    environment ''
    local packages
    packages=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    put_text "#!$VENV/bin/python -IS
# The node program of the aws_ovs network driver. Without the site module it starts 3 ms sooner.
import sys

sys.path.append(\"$VENV/lib/$packages/site-packages\")
from vnm_aws.driver.main import main

sys.exit(main())
" $PROGRAM 0755
    visudo -cqf "$HERE/share/sudoers/aws_ovs" || fail "visudo does not accept share/sudoers/aws_ovs; is the checkout whole?"
    put "$HERE/share/sudoers/aws_ovs" $SUDOERS 0440
    put "$HERE/share/sysctl/60-aws_ovs.conf" $SYSCTL 0644
    put "$HERE/share/tmpfiles/aws_ovs.conf" $TMPFILES 0644
    local directory
    for directory in /var/lib/aws_ovs /run/aws_ovs; do
        [ -d $directory ] || change "make $directory" install -d -m 755 $directory
    done
}

# active KEY VALUE: oned.conf has KEY = "VALUE" in a line that is not a comment.
active() {
    grep -Eq "^[[:space:]]*$1[[:space:]]*=[[:space:]]*\"$2\"" "$3"
}

has_driver() {
    grep -v '^[[:space:]]*#' "$1" | tr '\n' ' ' | grep -Eq 'VN_MAD_CONF[[:space:]]*=[[:space:]]*\[[^]]*NAME[[:space:]]*=[[:space:]]*"aws_ovs"'
}

without_block() {
    awk -v begin="$BEGIN" -v end="$END" '$0 == begin { skip = 1 } !skip { print } $0 == end { skip = 0 }' "$1"
}

rewrite_oned() {
    [ -e $ONED.before-aws_ovs ] || cp -p $ONED $ONED.before-aws_ovs
    cp -p $ONED $ONED.new~
    cat "$1" >$ONED.new~
    mv -f $ONED.new~ $ONED
}

configure_oned() {
    local rest wanted attribute
    rest=$(mktemp)
    wanted=$(mktemp)
    without_block $ONED >"$rest"
    cp "$rest" "$wanted"
    {
        has_driver "$rest" || printf 'VN_MAD_CONF = [\n    NAME = "aws_ovs",\n    BRIDGE_TYPE = "openvswitch"\n]\n'
        for attribute in $INHERITED; do
            active INHERIT_VNET_ATTR "$attribute" "$rest" || echo "INHERIT_VNET_ATTR = \"$attribute\""
        done
    } >"$rest.block"
    if [ -s "$rest.block" ]; then
        { echo "$BEGIN"; cat "$rest.block"; echo "$END"; } >>"$wanted"
    fi
    if ! cmp -s "$wanted" $ONED; then
        change "add the driver to $ONED" rewrite_oned "$wanted"
    fi
    rm -f "$rest" "$rest.block" "$wanted"
}

install_frontend() {
    echo "front-end:"
    id oneadmin >/dev/null 2>&1 || fail "there is no user oneadmin; install opennebula first"
    [ -f $ONED ] || fail "$ONED is missing; install opennebula first"
    [ -d $REMOTES ] || fail "$REMOTES is missing; install opennebula first"
    local script target=$REMOTES/vnm/aws_ovs
    [ -d $target ] || change "make $target" install -d -m 755 -o oneadmin -g oneadmin $target
    for script in "$HERE"/remotes/vnm/aws_ovs/*; do
        put "$script" "$target/$(basename "$script")" 0755 oneadmin
    done
    if [ ! -e $CONFIGURATION ]; then
        put "$HERE/remotes/etc/vnm/aws_ovs.yaml" $CONFIGURATION 0644 oneadmin
    elif cmp -s "$HERE/remotes/etc/vnm/aws_ovs.yaml" $CONFIGURATION; then
        drop $CONFIGURATION.new
    elif ! cmp -s "$HERE/remotes/etc/vnm/aws_ovs.yaml" $CONFIGURATION.new; then
        echo "  $CONFIGURATION was edited and stays; the one of this version is beside it as aws_ovs.yaml.new"
        put "$HERE/remotes/etc/vnm/aws_ovs.yaml" $CONFIGURATION.new 0644 oneadmin
    fi
    [ -e $LIB/frontend ] || change "mark $LIB as the front-end's too" sh -c "install -d -m 755 $LIB && touch $LIB/frontend"
    environment '[frontend]'
    if [ "$(readlink $ONEAWS || true)" != $VENV/bin/oneaws ]; then
        change "link $ONEAWS" ln -sfn $VENV/bin/oneaws $ONEAWS
    fi
    configure_oned
}

uninstall_node() {
    drop $PROGRAM $SUDOERS $SYSCTL $TMPFILES /run/aws_ovs
    rmdir /var/lib/aws_ovs 2>/dev/null || [ ! -d /var/lib/aws_ovs ] || echo "  /var/lib/aws_ovs stays"
}

uninstall_frontend() {
    drop $ONEAWS $REMOTES/vnm/aws_ovs $CONFIGURATION.new $LIB/frontend
    if cmp -s "$HERE/remotes/etc/vnm/aws_ovs.yaml" $CONFIGURATION; then
        drop $CONFIGURATION
    elif [ -e $CONFIGURATION ]; then
        echo "  $CONFIGURATION was edited and stays"
    fi
    if [ -f $ONED ] && grep -qxF "$BEGIN" $ONED; then
        local rest
        rest=$(mktemp)
        without_block $ONED >"$rest"
        change "remove the driver from $ONED" rewrite_oned "$rest"
        rm -f "$rest"
    fi
}

frontend= node= uninstall=
for word in "$@"; do
    case $word in
        --frontend) frontend=1 ;;
        --node) node=1 ;;
        --uninstall) uninstall=1 ;;
        --dry-run) dry=1 ;;
        --help | -h) usage; exit 0 ;;
        *) fail "unknown argument '$word'; see install.sh --help" ;;
    esac
done
[ -n "$frontend$node$uninstall" ] || { usage >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "this writes to /usr and /etc, so run it as root: sudo $0 $*"

if [ -n "$uninstall" ]; then
    [ -n "$frontend$node" ] || frontend=1 node=1
    echo "uninstall:"
    [ -z "$node" ] || uninstall_node
    [ -z "$frontend" ] || uninstall_frontend
    [ -e $PROGRAM ] || [ -e $LIB/frontend ] || [ -L $ONEAWS ] || drop $LIB
else
    [ -z "$node" ] || install_node
    [ -z "$frontend" ] || install_frontend
fi

if [ "$changes" = 0 ]; then
    echo "nothing to change"
elif [ -n "$dry" ]; then
    echo "$changes changes, none made (--dry-run)"
else
    echo "$changes changes made"
    if [ -z "$uninstall" ] && [ -n "$frontend" ]; then
        echo "next: systemctl restart opennebula, then (as oneadmin) onehost sync -f"
    fi
    if [ -z "$uninstall" ] && [ -n "$node" ]; then
        echo "next: sysctl --system"
    fi
fi
