# What fake_oumi.sh and fake_sky.sh share: the state of the fake clouds, the knobs, and the way to print. POSIX sh.
#
# The state is a folder, $FAKE_CLOUD, or else the folder above the one that this program is linked into:
#   calls                              one line a call, fields parted by tabs: program, pid, COLUMNS,
#                                      OUMI_SLURM_CONNECTIONS, then the arguments
#   staged-<n>.yaml                    the config that the n-th `oumi launch up` was given
#   clusters/<name>/                   a cluster of SkyPilot: files status, cloud, launched_at, autostop, price
#   hosts/<user@host>/                 a Slurm cluster
#   …/jobs/<id>/                       a job: files name, status, submitted_at, start_at, end_at, resources, setup_log, log
#   api_down                           SkyPilot's API server has to be started first; the first call does
#   knobs/<command>.<knob>             what goes wrong. The command is oumi-up, oumi-status, oumi-logs, oumi-cancel,
#                                      oumi-stop, oumi-down, sky-version, sky-status, sky-queue, sky-logs, sky-cancel,
#                                      sky-stop or sky-down. A knob and what its file says:
#     times     how many calls the knobs of this command are for; without it, all
#     delay     seconds to wait before anything is printed
#     gate      waits, before anything is printed, until the file knobs/<command>.open is there
#     late      looks at once, and waits before it says what it saw until the file knobs/<command>.open is there; the file
#               late-<command> says that it has looked
#     hang      never ends, whatever TERM says; the file hanging-<command> says that it does
#     replay    the name of a capture, printed with its exit code instead of anything else
#     garbage   half (of the output), text (no JSON), empty, bytes (random ones), huge (100 MB); exit code 0
#     crash     killed in the middle of the output. For oumi-up: before-job or after-job
#     block     oumi-up only: waits in the middle, when the cluster is there and the job is not, until the file
#               knobs/<command>.go is there; the file blocked-<command> says that it waits. With after-job it waits when
#               SkyPilot has said the job's id, and Oumi has not
#     noop      sky-cancel and oumi-cancel only: says that it cancelled, and the job goes on
#   knobs/first_status                 the status of a job after its launch; RUNNING without it
#   knobs/job_seconds                  after how many seconds a running job succeeds; never without it
#   knobs/first_log, first_setup_log   what the log of every job begins with
#
# A program that waits ends by itself when the folder is gone, so nothing is left over when a test fails.

# shellcheck shell=sh disable=SC2010,SC2034,SC2154,SC2217
set -uf
umask 077

# $program is the script itself, and $0 what it was called by.
captures=$(CDPATH='' cd -- "$(dirname -- "$program")/captures" && pwd) || exit 99
[ "$program" = "$0" ] || FAKE_CLOUD=${FAKE_CLOUD:-$(dirname -- "$(dirname -- "$0")")}
if ! [ -d "${FAKE_CLOUD-}" ]; then
    echo "the folder FAKE_CLOUD is missing: ${FAKE_CLOUD-}" >&2
    exit 99
fi
esc=$(printf '\033')
tab=$(printf '\t')
width=${COLUMNS:-80}
code=0

# ---- calls and knobs

note_call() { # program argument…
    name=$1
    shift
    line=$name$tab$$$tab${COLUMNS-}$tab${OUMI_SLURM_CONNECTIONS-}
    for argument; do
        line=$line$tab$(printf %s "$argument" | tr '\t\n' '  ')
    done
    printf '%s\n' "$line" >>"$FAKE_CLOUD/calls"
}

knobs_for() { # command
    command=$1
    knobs=$FAKE_CLOUD/knobs
    left=$(cat "$knobs/$command.times" 2>/dev/null || echo always)
    case $left in
        always) ;;
        0) knobs=/nonexistent ;;
        *) put "$knobs/$command.times" $((left - 1)) ;;
    esac
}

knob() { # knob: prints what it says
    cat "$knobs/$command.$1" 2>/dev/null
}

has_knob() {
    [ -e "$knobs/$command.$1" ]
}

tick() {
    [ -d "$FAKE_CLOUD" ] || exit 1
    sleep 0.05 >/dev/null 2>&1 </dev/null
}

wait_seconds() { # seconds, a fraction too
    ticks=$(awk -v s="$1" 'BEGIN { printf "%d", s * 20 }')
    while [ "$ticks" -gt 0 ]; do
        tick
        ticks=$((ticks - 1))
    done
}

wait_if_blocked() { # middle or after-job
    has_knob block || return 0
    [ "$(knob block)" = after-job ] && point=after-job || point=middle
    [ "$point" = "$1" ] || return 0
    : >"$FAKE_CLOUD/blocked-$command"
    while ! [ -e "$FAKE_CLOUD/knobs/$command.go" ]; do tick; done
    rm -f "$FAKE_CLOUD/blocked-$command"
}

crash() {
    kill -KILL $$
}

replay() { # capture: prints it and ends as it did
    cat "$captures/$1.out"
    [ -s "$captures/$1.err" ] && cat "$captures/$1.err" >&2
    exit "$(sed -n 's/^exit: *//p' "$captures/$1.meta")"
}

# Runs the rest of the command line, a function that prints and sets $code, as the knobs say, and ends.
perform() {
    if has_knob delay; then wait_seconds "$(knob delay)"; fi
    if has_knob gate; then
        while ! [ -e "$FAKE_CLOUD/knobs/$command.open" ]; do tick; done
    fi
    if has_knob hang; then
        trap '' TERM INT HUP
        : >"$FAKE_CLOUD/hanging-$command"
        while :; do tick; done
    fi
    if has_knob replay; then replay "$(knob replay)"; fi
    case $(knob garbage) in
        text) echo 'Something [else] {entirely} was said.' && exit 0 ;;
        empty) exit 0 ;;
        bytes) head -c 65536 /dev/urandom && exit 0 ;;
        huge) yes '{"x": [1, 2, 3' | head -c 104857600 && exit 0 ;;
        half) half "$@" && exit 0 ;;
    esac
    if has_knob crash && [ "$command" != oumi-up ]; then
        half "$@"
        crash
    fi
    if has_knob late; then
        seen=$FAKE_CLOUD/late-$$
        "$@" >"$seen"
        : >"$FAKE_CLOUD/late-$command"
        while ! [ -e "$FAKE_CLOUD/knobs/$command.open" ]; do tick; done
        cat "$seen"
        exit "$code"
    fi
    "$@"
    exit "$code"
}

half() {
    scratch=$FAKE_CLOUD/half-$$
    "$@" >"$scratch"
    head -c $(($(wc -c <"$scratch") / 2)) "$scratch"
    rm -f "$scratch"
}

# ---- the state

now() {
    date +%s
}

# Prints a file of the state without its newline, or what else there is to say.
value() { # file default
    if [ -e "$1" ]; then printf %s "$(cat "$1")"; else printf %s "${2-}"; fi
}

# Writes a file of the state in one step, since others may be reading it.
put() { # file, what
    printf %s "$2" >"$1.$$" && mv "$1.$$" "$1"
}

is_cluster() {
    [ -n "$1" ] && [ -d "$FAKE_CLOUD/clusters/$1" ]
}

cluster_status() {
    value "$FAKE_CLOUD/clusters/$1/status" UP
}

job_ids() { # folder of the jobs' owner: oldest first
    ls "$1/jobs" 2>/dev/null | grep -E '^[0-9]+$' | sort -n
}

job_ids_newest_first() {
    job_ids "$1" | sort -nr
}

is_done() { # status
    case $1 in
        INIT | PENDING | SETTING_UP | RUNNING | CONFIGURING | COMPLETING | SUSPENDED) return 1 ;;
    esac
}

# Prints the status of a job, after letting it end when its time has come.
job_status() { # folder of the job, word for success
    status=$(value "$1/status" RUNNING)
    seconds=$(value "$FAKE_CLOUD/knobs/job_seconds")
    if [ "$status" = RUNNING ] && [ -n "$seconds" ] &&
        [ $(($(now) - $(value "$1/submitted_at" 0))) -ge "$seconds" ]; then
        status=$2
        end_job "$1" "$status"
    fi
    printf %s "$status"
}

end_job() { # folder of the job, status
    put "$1/end_at" "$(now)"
    put "$1/status" "$2"
}

# Makes a job and prints its id.
add_job() { # folder of the owner, name, resources
    mkdir -p "$1/jobs"
    until mkdir "$1/lock" 2>/dev/null; do tick; done
    id=$(job_ids "$1" | tail -n 1)
    id=$((${id:-0} + 1))
    mkdir "$1/jobs/$id"
    rmdir "$1/lock"
    put "$1/jobs/$id/name" "$2"
    put "$1/jobs/$id/resources" "$3"
    put "$1/jobs/$id/submitted_at" "$(now)"
    for log in log setup_log; do
        [ -e "$FAKE_CLOUD/knobs/first_$log" ] && cat "$FAKE_CLOUD/knobs/first_$log" >"$1/jobs/$id/$log"
    done
    status=$(value "$FAKE_CLOUD/knobs/first_status" RUNNING)
    [ "$status" = RUNNING ] && put "$1/jobs/$id/start_at" "$(now)"
    put "$1/jobs/$id/status" "$status"
    printf %s "$id"
}

# ---- printing

# As SkyPilot does where its API server does not run.
start_api_server() {
    [ -e "$FAKE_CLOUD/api_down" ] || return 0
    sed -n 1,2p "$captures/sky/api-start.out"
    rm -f "$FAKE_CLOUD/api_down"
}

# The whole log of a job on a cluster of SkyPilot, in colour.
sky_job_log() { # folder of the job, id
    heading=$captures/sky/logs-nofollow-failed.out
    sed -n 2p "$heading"
    case $(value "$1/status") in INIT | PENDING) return 0 ;; esac
    sed -n 3p "$heading"
    if [ -s "$1/setup_log" ]; then sed "s|^|${esc}[36m(setup pid=2548)${esc}[0m |" "$1/setup_log"; fi
    if [ -s "$1/log" ]; then
        lines_of "$1/log" | sed "s|^|${esc}[36m($(value "$1/name"), pid=28808)${esc}[0m |"
    fi
    case $(value "$1/status") in
        FAILED) sed -n 5,6p "$heading" | sed "s/Job 2 /Job $2 /" ;;
        FAILED_SETUP)
            sed -n 5,8p "$captures/sky/logs-failsetup.out" | sed "s/Job 1's/Job $2's/"
            ;;
    esac
}

# SkyPilot 0.12 prefixes what ends in a carriage return like a line, and reads it back as one unless it follows the log.
lines_of() { # log
    if [ -n "${no_follow-}" ]; then tr '\r' '\n' <"$1"; else cat "$1"; fi
}

# Prints what is written to a log until the job has ended.
follow() { # folder of the job, word for success, function that prints the whole log, its arguments…
    job=$1
    success=$2
    shift 2
    shown=0
    so_far=$FAKE_CLOUD/follow-$$
    while :; do
        status=$(job_status "$job" "$success")
        "$@" >"$so_far"
        tail -n "+$((shown + 1))" "$so_far"
        shown=$(wc -l <"$so_far")
        is_done "$status" && break
        tick
    done
    rm -f "$so_far"
}
