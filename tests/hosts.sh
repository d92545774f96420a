#!/usr/bin/env bash
# The program over several hosts: network namespaces of this machine, joined by a bridge, with 1 Gbit/s each way on
# every cable. Shows that training gives the bits of a run on one host, that the ring and the reductions cross the
# network and nothing else does, that the ring's transfers hide behind attention, and what happens when a host is cut
# off. Needs root, iproute2 and Open MPI. Prints a line per check and ends with "N passed, N failed". `make check-hosts`
# calls it.
#
#   tests/hosts.sh PROGRAM BENCH_RING
#
# Everything lives in namespaces named ringgpt-check-*, the bridge included: the machine's own network is not touched.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
program="$(realpath "$1")"
bench="$(realpath "$2")"
agent="$PWD/tests/hosts_agent.sh"
prefix=ringgpt-check
network=10.213.7
passed=0
failed=0

if [ "$(id -u)" != 0 ]; then
  echo "tests/hosts.sh makes network namespaces: call it as root"
  exit 1
fi
for tool in ip tc unshare mpirun; do
  if ! command -v "$tool" >/dev/null; then
    echo "tests/hosts.sh needs $tool (packages iproute2, util-linux, openmpi-bin)"
    exit 1
  fi
done
# Whoever has the lock may take all namespaces of that name for leftovers. What is started here must not inherit it.
exec 9>"/run/$prefix.lock" || exit 1
if ! flock -n 9; then
  echo "tests/hosts.sh runs already"
  exit 1
fi

# ---------------------------------------------------------------- hosts

namespaces() {
  ip netns list | awk '{ print $1 }' | grep "^$prefix-"
}

# Ends every process in the hosts, and the hosts.
remove_hosts() {
  local name
  for name in $(namespaces); do
    ip netns pids "$name" | xargs -r kill -KILL 2>/dev/null
  done
  for name in $(namespaces); do ip netns delete "$name"; done
}

clean_up() {
  remove_hosts
  rm -rf "$work"
}

work="$(mktemp -d /tmp/ringgpt-hosts.XXXXXX)" || exit 1
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

limit_rate() { # NAMESPACE DEVICE
  tc -n "$1" qdisc add dev "$2" root tbf rate 1gbit burst 256k latency 100ms
}

add_host() { # NUMBER
  local name="$prefix-$1"
  ip netns add "$name" &&
    ip -n "$name" link set lo up &&
    ip link add eth0 netns "$name" type veth peer name "port$1" netns "$prefix-switch" &&
    ip -n "$name" address add "$network.$1/24" dev eth0 &&
    ip -n "$name" link set eth0 up &&
    ip -n "$prefix-switch" link set "port$1" master bridge &&
    ip -n "$prefix-switch" link set "port$1" up &&
    limit_rate "$name" eth0 && limit_rate "$prefix-switch" "port$1"
}

make_hosts() { # COUNT
  local number
  remove_hosts
  ip netns add "$prefix-switch" &&
    ip -n "$prefix-switch" link add bridge type bridge &&
    ip -n "$prefix-switch" link set bridge up || return 1
  echo "127.0.0.1 localhost" >"$work/hosts"
  for number in $(seq "$1"); do
    add_host "$number" || return 1
    echo "$network.$number $prefix-$number" >>"$work/hosts"
  done
}

# Runs a command on the first host.
on_first_host() {
  local command
  printf -v command '%q ' "$@"
  "$agent" "$prefix-1" "exec $command" 9>&-
}

# mpirun on the first host over all of them, SLOTS ranks each.
over_hosts() { # HOSTS SLOTS SECONDS COMMAND...
  local hosts="$1" slots="$2" seconds="$3" number
  shift 3
  for number in $(seq "$hosts"); do echo "$prefix-$number slots=$slots"; done >"$work/hostfile"
  on_first_host timeout --kill-after=5 "$seconds" mpirun -n $((hosts * slots)) --hostfile "$work/hostfile" "$@"
}

export HOSTS_FILE="$work/hosts"
export TMPDIR="$work/tmp"
mkdir "$TMPDIR"
export OMPI_MCA_plm_rsh_agent="$agent"
export OMPI_MCA_btl_tcp_if_include="$network.0/24" OMPI_MCA_oob_tcp_if_include="$network.0/24"
export OMPI_MCA_btl_vader_backing_directory="$TMPDIR"
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp

ok() {
  passed=$((passed + 1))
  echo "ok      $*"
}

failed() { # TEXT [FILE with what was said]
  failed=$((failed + 1))
  echo "FAILED  $1"
  if [ -n "${2:-}" ]; then tail -n 20 "$2" | sed 's/^/        /'; fi
}

# ---------------------------------------------------------------- the same bits, and what crosses the network

options=(configs/tiny.yaml "data.train=$work/data/train_*.bin.gz" train.sequence_length=2048 train.steps=8
  checkpoint.every=0)

# Losses and norms of a run, all their digits.
numbers() { # RUN
  grep -oE '"(loss|grad_norm)":[^,}]*' "$1/metrics.jsonl"
}

sent_bytes() { # NUMBER: what a host has sent so far
  ip netns exec "$prefix-$1" cat /sys/class/net/eth0/statistics/tx_bytes
}

# What rank 0 says it has sent, added up.
reported_bytes() { # RUN
  sed -n 's/.*rank 0 sent: //p' "$1/log.txt" | grep -oE '[0-9]+ bytes' | awk '{ sum += $1 } END { printf "%d", sum }'
}

# Every host must have sent what rank 0 reports, and at most a tenth and 2 MB (starting, ending) more: all ranks send
# as much as rank 0 does, and with one rank on each host everything has to cross the network.
check_traffic() { # HOSTS NAME RUN BEFORE...
  local hosts="$1" name="$2" reported number after crossed text="" good=1
  reported="$(reported_bytes "$3")"
  shift 3
  for number in $(seq "$hosts"); do
    after="$(sent_bytes "$number")"
    crossed=$((after - $1))
    shift
    text="$text $crossed"
    if ((crossed < reported || crossed > reported + reported / 10 + 2000000)); then good=0; fi
  done
  text="$name: each rank hands $reported bytes to other hosts; sent by the hosts' interfaces:$text"
  if ((good && reported > 0)); then ok "$text"; else failed "$text"; fi
}

check_training() { # HOSTS SLOTS RING DATA
  local hosts="$1" slots="$2" name="$1 hosts, ring $3 x data $4" number
  local here="$work/threads-$3-$4" there="$work/hosts-$1-$3-$4" before=()
  local grid=("parallelism.ring=$3" "parallelism.data=$4")
  if [ ! -d "$here" ] && ! "$program" train "${options[@]}" "${grid[@]}" run.dir="$here" >"$work/said" 2>&1; then
    failed "$name: the run on one host ended with an error" "$work/said"
    return
  fi
  for number in $(seq "$hosts"); do before+=("$(sent_bytes "$number")"); done
  if ! over_hosts "$hosts" "$slots" 60 "$program" train "${options[@]}" "${grid[@]}" run.dir="$there" \
    >"$work/said" 2>&1; then
    failed "$name: training ended with an error" "$work/said"
    return
  fi
  if [ -n "$(numbers "$here")" ] && [ "$(numbers "$here")" = "$(numbers "$there")" ] &&
    cmp -s {"$here","$there"}/checkpoints/step_00000008/model.safetensors; then
    ok "$name: losses, norms and weights after 8 steps are those of one host, bit for bit"
  else
    failed "$name: other losses, norms or weights than on one host"
  fi
  if [ "$slots" = 1 ]; then check_traffic "$hosts" "$name" "$there" "${before[@]}"; fi
}

# ---------------------------------------------------------------- hiding

measure_ring() { # HOSTS TOKENS HEADS KV_HEADS REPETITIONS
  over_hosts "$1" 1 120 "$bench" -t "$2" -n "$3" -k "$4" -d 64 -s "$5" --json "$work/ring.json" >"$work/said" 2>&1
}

number_of() { # PASS NAME: from what bench_ring has written
  sed -n "/\"$1\": {/,/}/s/.*\"$2\": *\([-0-9.e+]*\).*/\1/p" "$work/ring.json"
}

describe_pass() { # PASS
  awk -v f="$(number_of "$1" flops)" -v b="$(number_of "$1" bandwidth)" -v bound="$(number_of "$1" bound_tokens)" \
    -v alone="$(number_of "$1" transfer_seconds)" -v exposed="$(number_of "$1" exposed_seconds)" \
    -v skew="$(number_of "$1" skew_seconds)" -v hidden="$(number_of "$1" hidden)" 'BEGIN {
      printf "F %.0f GFLOP/s, B %.0f MB/s: bound %.0f tokens; transfers alone %.0f ms, exposed %.1f ms, skew %.1f ms: " \
        "%.1f %% hidden", f / 1e9, b / 1e6, bound, 1e3 * alone, 1e3 * exposed, 1e3 * skew, 100 * hidden }'
}

hides() { # PASS TOKENS_OF_A_RANK
  awk -v hidden="$(number_of "$1" hidden)" -v bound="$(number_of "$1" bound_tokens)" -v tokens="$2" \
    'BEGIN { exit !(hidden >= 0.9 && tokens >= bound) }'
}

# Other work on the same cores disturbs: the first of three measurements that shows it counts.
check_hiding() { # HOSTS TOKENS HEADS KV_HEADS REPETITIONS
  local tokens=$(($2 / $1)) text="$1 hosts, $(($2 / $1)) tokens a rank, heads $3/$4" attempt pass
  for attempt in 1 2 3; do
    if ! measure_ring "$@"; then
      failed "$text: the benchmark ended with an error" "$work/said"
      return
    fi
    if hides forward "$tokens" && hides backward "$tokens"; then break; fi
    [ "$attempt" = 3 ] || sed 's/^/        measured again: /' "$work/said"
  done
  for pass in forward backward; do
    if hides "$pass" "$tokens"; then
      ok "$text, $pass: $(describe_pass "$pass")"
    else
      failed "$text, $pass: $(describe_pass "$pass")"
    fi
  done
}

# Fewer tokens than the bound asks for, where nothing else takes the cores: for comparison.
show_exposed() { # HOSTS TOKENS HEADS KV_HEADS REPETITIONS
  local pass
  if ! measure_ring "$@"; then
    failed "$1 hosts, $(($2 / $1)) tokens a rank: the benchmark ended with an error" "$work/said"
    return
  fi
  for pass in forward backward; do
    echo "        for comparison: $1 hosts, $(($2 / $1)) tokens a rank, heads $3/$4, $pass: $(describe_pass "$pass")"
  done
}

# ---------------------------------------------------------------- a host that is cut off

steps_done() { # RUN
  local count
  count="$(grep -sc '"loss"' "$1/metrics.jsonl")"
  echo "${count:-0}"
}

processes_left() { # HOSTS
  local number
  for number in $(seq "$1"); do ip netns pids "$prefix-$number"; done | wc -l
}

# The cable of the last host is pulled in the middle of a run. Open MPI's daemons notice by their keepalive messages,
# name the host and end all ranks, which the lost host does for itself. That has to come before parallelism.timeout:
# when a rank gives up first, mpirun sends the lost daemon an order to end, and while that order is unanswered there are
# no keepalive messages; it then waits for minutes.
check_cut() { # HOSTS
  local run="$work/cut" status=0 begin trainer seconds tries=0 text
  over_hosts "$1" 1 40 --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 \
    --mca oob_tcp_keepalive_probes 2 "$program" train "${options[@]}" parallelism.ring="$1" parallelism.timeout=8 \
    train.steps=100000 run.dir="$run" >"$work/said" 2>&1 &
  trainer=$!
  while kill -0 "$trainer" 2>/dev/null && [ "$(steps_done "$run")" -lt 3 ]; do sleep 0.1; done
  ip -n "$prefix-switch" link set "port$1" down
  begin=$EPOCHREALTIME
  wait "$trainer" || status=$?
  seconds="$(awk -v from="$begin" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }')"
  while [ "$(processes_left "$1")" != 0 ] && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  text="$1 hosts, one cut off: mpirun ends after $seconds s with status $status; $(processes_left "$1") processes left; "
  text+="said: $(grep -aoE 'ringgpt: .*|Remote daemon: .*' "$work/said" | tr -d '\r' | paste -sd ';')"
  if [ "$status" != 0 ] && [ "${seconds%.*}" -lt 10 ] && [ "$(processes_left "$1")" = 0 ] &&
    grep -aqE "rank $(($1 - 1)) |Remote daemon:.* on node $prefix-$1" "$work/said"; then
    ok "$text"
  else
    failed "$text" "$work/said"
  fi
}

# ---------------------------------------------------------------- all of it

if ! "$program" prepare --out "$work/data" --suffix .c,.h checkpoints data kernels model tests train >"$work/said" 2>&1; then
  failed "shards of the program's own sources" "$work/said"
fi

if make_hosts 2; then
  check_training 2 1 2 1
  check_training 2 2 2 2
  check_hiding 2 24576 2 2 5
  show_exposed 2 4096 2 2 5
else
  failed "2 hosts could not be made"
fi

# Four hosts share this machine's cores, which makes F smaller and the bound with it.
if make_hosts 4; then
  check_training 4 1 4 1
  check_training 4 1 2 2
  check_hiding 4 32768 2 2 5
  check_cut 4
else
  failed "4 hosts could not be made"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
