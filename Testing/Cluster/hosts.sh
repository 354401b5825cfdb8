# Hosts for the scripts beside this file, which source it: network namespaces of this machine with addresses of their own, which
# nothing outside can reach. The host "head" has 10.77.0.1, "a" 10.77.0.2, and "b" 10.77.0.3.

name=css$$

fail() { # sentence, exit code
    echo "$(basename "$0"): $1" >&2
    exit "${2:-1}"
}

on() { # host, command...
    host=$1
    shift
    ip netns exec "$name-$host" unshare --uts sh -c 'hostname "$0" && exec "$@"' "host-$host" "$@"
}

connect() { # the hosts, by a bridge in the namespace of the first
    [ "$(id -u)" = 0 ] || fail "Network namespaces need root. Run this as root." 77
    command -v ip >/dev/null || fail "The program ip is not installed (Debian: iproute2)." 77
    for host in head a b; do
        ip netns add $name-$host && ip -n $name-$host link set lo up || fail "Network namespaces are not allowed here." 77
    done
    ip -n $name-head link add name bridge0 type bridge
    ip -n $name-head address add 10.77.0.1/24 dev bridge0
    ip -n $name-head link set bridge0 up
    for host in a b; do
        ip -n $name-head link add name to-$host type veth peer name eth0 netns $name-$host
        ip -n $name-head link set to-$host master bridge0 up
        ip -n $name-$host link set eth0 up
    done
    ip -n $name-a address add 10.77.0.2/24 dev eth0
    ip -n $name-b address add 10.77.0.3/24 dev eth0
}

disconnect() { # the hosts, and end all that runs on them
    for host in head a b; do
        for pid in $(ip netns pids $name-$host 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
        ip netns del $name-$host 2>/dev/null || true
    done
}
