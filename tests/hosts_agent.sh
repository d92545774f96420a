#!/bin/sh
# Runs a command on one of the hosts of tests/hosts.sh, as ssh would: in the host's network, under its name, and with
# the hosts' own /etc/hosts. Open MPI starts its daemons by it (OMPI_MCA_plm_rsh_agent).
#
#   tests/hosts_agent.sh HOST COMMAND...
#   HOSTS_FILE   what the hosts see as /etc/hosts
host="$1"
shift
# shellcheck disable=SC2016 # expanded on the host
exec ip netns exec "$host" unshare --uts --mount /bin/sh -c \
  'hostname "$0" && mount --bind "$HOSTS_FILE" /etc/hosts && exec /bin/sh -c "$1"' "$host" "$*"
