#!/bin/sh
# Sends heartbeats of a Linux machine to agent-metrics. Needs only POSIX sh, curl and /proc.
#
#   AGENT_METRICS_SERVER=https://metrics.example.org \
#   AGENT_METRICS_APP_KEY=... AGENT_METRICS_APP_SECRET=... sh heartbeat.sh
#
# Optional: AGENT_METRICS_ID (default: the host name), AGENT_METRICS_INTERVAL (whole seconds, default
# 30s), AGENT_METRICS_STATUS (default idle), and AGENT_METRICS_APP_SECRET_FILE instead of the secret
# itself. On SIGTERM, SIGINT and SIGHUP it says goodbye and ends. CPU and memory are always those of
# the machine, in a container too.
set -u

: "${AGENT_METRICS_SERVER:?is the address of the server, such as https://metrics.example.org}"
: "${AGENT_METRICS_APP_KEY:?is the app key}"
if [ -n "${AGENT_METRICS_APP_SECRET_FILE:-}" ]; then
    AGENT_METRICS_APP_SECRET=$(cat "$AGENT_METRICS_APP_SECRET_FILE") || exit 2
fi
: "${AGENT_METRICS_APP_SECRET:?is the secret of the app key}"
id=${AGENT_METRICS_ID:-$(cat /proc/sys/kernel/hostname)}
# Characters that an id cannot have become dashes.
id=$(printf %s "$id" | LC_ALL=C tr -c 'A-Za-z0-9._-' '-' | cut -c 1-128)
interval=${AGENT_METRICS_INTERVAL:-30s}
interval=${interval%s}
case $interval in
    '' | 0* | *[!0-9]*) echo "AGENT_METRICS_INTERVAL: whole seconds, such as 30s" >&2; exit 2 ;;
esac
status=${AGENT_METRICS_STATUS:-idle}
url="${AGENT_METRICS_SERVER%/}/api/v1/agents/$id/ping"
failing=

# A header as a line of curl's configuration, with " and \ escaped.
header() {
    sed -e 's/["\\]/\\&/g' -e 's/.*/header = "&"/' <<END
$1: $2
END
}

# curl reads key and secret from standard input: every user can see arguments.
post() {
    { header X-App-Key "$AGENT_METRICS_APP_KEY"; header X-App-Secret "$AGENT_METRICS_APP_SECRET"; } |
        curl --config - --silent --show-error --fail --max-time "$1" --output /dev/null \
            --header 'Content-Type: application/json' --data "$2" "$url"
}

# Busy and total CPU time since boot, in ticks. user and nice include the time of guests.
cpu_times() {
    while read -r name user nice system idle iowait irq softirq steal rest; do
        [ "$name" = cpu ] || continue
        busy=$((user + nice + system + irq + softirq))
        total=$((busy + idle + iowait + steal))
        return
    done </proc/stat
}

# Used memory (total less available) in percent.
memory_percent() {
    while read -r name size rest; do
        case $name in
            MemTotal:) memory_total=$size ;;
            MemAvailable:) memory_available=$size ;;
        esac
    done </proc/meminfo
    share "$((memory_total - memory_available))" "$memory_total"
}

# $1 of $2 in percent, with one decimal, 0 to 100.
share() {
    tenths=0
    if [ "$2" -gt 0 ] && [ "$1" -gt 0 ]; then tenths=$((($1 * 1000 + $2 / 2) / $2)); fi
    if [ "$tenths" -gt 1000 ]; then tenths=1000; fi
    percent=$((tenths / 10)).$((tenths % 10))
}

goodbye() {
    trap '' HUP
    trap - INT TERM
    post 2 '{"status":"offline"}' 2>/dev/null
    [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null
    exit 0
}

# A signal interrupts `wait`, but not a `sleep` in the foreground. A remaining `sleep` must not keep
# the output open.
pause() {
    sleep "$1" >/dev/null 2>&1 &
    sleeper=$!
    wait "$sleeper"
    sleeper=
}

sleeper=
trap goodbye HUP INT TERM
cpu_times
last_busy=$busy last_total=$total
pause 1
while :; do
    cpu_times
    share "$((busy - last_busy))" "$((total - last_total))"
    cpu=$percent
    memory_percent
    memory=$percent
    beat="{\"status\":\"$status\",\"cpu_usage\":$cpu,\"memory_usage\":$memory}"
    if reason=$(post 10 "$beat" 2>&1); then
        [ -z "$failing" ] || echo "$url: received again" >&2
        failing=
        last_busy=$busy last_total=$total
    else
        [ -n "$failing" ] || echo "$url: heartbeats don't get through ($reason); trying again" >&2
        failing=yes
    fi
    pause "$interval"
done
