#!/bin/sh
# An `oumi` that answers as Oumi 0.9 did, from the state in $FAKE_CLOUD: `launch` only. See fake_lib.sh.
# shellcheck disable=SC2015,SC2086,SC2317 source=fake_lib.sh
program=$0
[ -L "$program" ] && program=$(readlink "$program")
. "$(dirname -- "$program")/fake_lib.sh"

banner() {
    cat "$captures/oumi-slurm/cancel-inflight.out"
}

# Wraps lines at the width of the terminal as Oumi's console does: at words, which keep their space where it fits, and
# words longer than a line over lines of their own.
wrap() {
    LC_ALL=C awk -v width="$width" '
        function len(text) { gsub(/[\200-\277]/, "", text); return length(text) }
        {
            rest = $0; line = ""; used = 0
            while (match(rest, /^ *[^ ]+ */)) {
                word = substr(rest, 1, RLENGTH); rest = substr(rest, RLENGTH + 1)
                bare = word; sub(/ +$/, "", bare)
                if (used + len(bare) <= width) { line = line word; used += len(word); continue }
                if (line != "") print cut(line)
                while (len(bare) > width) {
                    print substr(word, 1, width); word = substr(word, width + 1)
                    bare = word; sub(/ +$/, "", bare)
                }
                line = word; used = len(word)
            }
            print cut(line)
        }
        function cut(text) { if (len(text) > width) sub(/ +$/, "", text); return text }'
}

missing_option() { # its name, quoted
    banner
    usage=$captures/oumi-slurm/up-missing-arg.err
    sed -n 1,3p "$usage" | sed "s/launch up/launch $subcommand/g" >&2
    printf '│ %-76s │\n' "Missing option $1." >&2
    tail -n 1 "$usage" >&2
    code=2
}

# The traceback of a capture with another last line, after the banner.
traceback() { # capture, last line
    sed 1,8d "$captures/$1.out" | awk '
        { line[NR] = $0 }
        /^[A-Za-z.]+(Error|Exception): / { last = NR }
        END { for (i = 1; i < last; i++) print line[i] }'
    printf '%s\n' "$2" | wrap
    printf '\n\n%s\n%s\n' 'If you believe this is a bug, please file an issue:' \
        'https://github.com/oumi-ai/oumi/issues/new?template=bug-report.yaml'
    code=1
}

is_connected() { # user@host
    case ,${OUMI_SLURM_CONNECTIONS-}, in *,"$1",*) ;; *) return 1 ;; esac
}

# A value of the staged config, YAML as people write it or pretty JSON: the first `key:` at the margin, or indented.
config_value() { # key, how deep it stands: 0 or 1
    case $(head -n 1 "$config")$2 in
        '{0') before='  "' after='"' ;;
        '{1') before='    "' after='"' ;;
        *0) before='' after='' ;;
        *1) before='[[:space:]]\{1,\}' after='' ;;
    esac
    sed -n "s/^$before$1$after:[[:space:]]*//p" "$config" | head -n 1 | sed 's/,$//' | tr -d "\"'"
}

# ---- oumi launch up

up() {
    if [ -z "$config" ]; then
        missing_option "'--config' / '-c'"
        return
    fi
    if ! [ -f "$config" ]; then
        sed "s|jobs/nope.yaml|$config|g" "$captures/oumi-slurm/up-bad-config.out"
        code=1
        return
    fi
    staged=1
    until (set -C && cat "$config" >"$FAKE_CLOUD/staged-$staged.yaml") 2>/dev/null; do
        staged=$((staged + 1))
    done
    cloud=$(config_value cloud 1)
    job_name=$(config_value name 0)
    accelerators=$(config_value accelerators 1)
    if [ "$cloud" = slurm ]; then up_slurm; else up_sky; fi
}

up_slurm() {
    if [ -z "$cluster" ]; then
        replay oumi-slurm/up-no-cluster
    fi
    user=$(config_value user 0)
    if [ "$user" != "${cluster%%@*}" ]; then
        banner
        traceback oumi-slurm/up-no-cluster \
            "ValueError: Invalid cluster name: \`$cluster\`. User must match the provided job user: \`$user\`."
        return
    fi
    launch=$captures/oumi-slurm/up-detach-existing-cluster.out
    banner
    is_connected "$cluster" && echo "Found an existing cluster: $cluster." | wrap
    sed -n '/Running rsync/,/Rsync command/p' "$launch" | sed "s/root@localhost/$cluster/"
    middle
    owner=$FAKE_CLOUD/hosts/$cluster
    id=$(add_job "$owner" "$job_name" '')
    launched "$cluster" COMPLETED slurm_job_log
}

up_sky() {
    cluster=${cluster:-sky-$(printf %04x "$$")-root}
    owner=$FAKE_CLOUD/clusters/$cluster
    resources="1x[${accelerators:-CPU:1}]"
    banner
    if is_cluster "$cluster"; then
        launch=$captures/oumi-sky/up-blocking.out
        start_api_server
        echo "Found an existing cluster: $cluster." | wrap
        if [ "$(cluster_status "$cluster")" != UP ]; then
            traceback oumi-slurm/up-no-cluster "sky.exceptions.ClusterNotUpError: Cluster '$cluster' is not up."
            return
        fi
        middle
    else
        case $cloud in
            sky-slurm) shown=Slurm ;;
            lambda) shown=Lambda ;;
            runpod) shown=RunPod ;;
            k8s) shown=Kubernetes ;;
            *) shown=$(echo "$cloud" | tr '[:lower:]' '[:upper:]') ;;
        esac
        launch=$captures/oumi-sky/up-detach-new.out
        mkdir -p "$owner"
        put "$owner/status" INIT
        put "$owner/cloud" "$shown"
        put "$owner/launched_at" "$(now)"
        start_api_server
        autostop_line
        sed -n '/^Running on cluster/,/Launching on/p' "$launch" |
            sed "s/skyc2/$cluster/; s/Slurm labslurm/$shown labslurm/"
        middle
        put "$owner/status" UP
        sed -n '/Instance is up/,/Cluster launched/p' "$launch" | sed "s/skyc2/$cluster/g"
    fi
    id=$(add_job "$owner" "$job_name" "$resources")
    sed -n '/Syncing files/,/Job submitted/p' "$launch" | sed "s/Job submitted, ID: .*/Job submitted, ID: $id/"
    echo
    wait_if_blocked after-job
    if has_knob crash; then crash; fi
    launched "$cluster" SUCCEEDED sky_job_lines
}

autostop_line() {
    case $shown in
        Slurm | Lambda | RunPod | Kubernetes)
            sed -n '/Will not set autostop/p' "$launch" | sed "s/Slurm does/$shown does/"
            ;;
        *)
            put "$owner/autostop" 60
            sed -n '/Will not set autostop/p' "$launch" |
                sed 's/] [^]]*$/] No idle_minutes_to_autostop provided. Defaulting to 60 minutes./'
            ;;
    esac
}

# The middle of a launch, where there is a cluster and no job yet.
middle() {
    wait_if_blocked middle
    if [ "$(knob crash)" = before-job ]; then crash; fi
}

launched() { # cluster, word for success, function that prints the job's log
    if has_knob crash; then crash; fi
    echo "Job $id queued on cluster $1." | wrap
    if [ -n "$detach" ]; then
        echo "Running job $id in detached mode." | wrap
        return
    fi
    echo 'Logging to console...'
    follow "$owner/jobs/$id" "$2" "$3" "$owner/jobs/$id" "$id"
    status=$(job_status "$owner/jobs/$id" "$2")
    if [ "$cloud" = slurm ]; then
        printf 'Job %s finished with status %s\nJob metadata:\nJobId=%s\n\n' "$id" "$status" "$id"
    else
        echo "✓ Job finished (status: $status)."
        printf 'Job %s finished with status JobStatus.%s\nJob metadata:\n\n' "$id" "$status"
    fi
}

# ---- logs

slurm_job_log() { # folder of the job
    cat "$1/setup_log" "$1/log" 2>/dev/null | wrap
}

sky_job_lines() { # folder of the job, id
    sky_job_log "$1" "$2" | sed "s/${esc}\\[[0-9;]*m//g" | wrap
}

logs() {
    if [ -z "$cluster" ]; then
        missing_option "'--cluster'"
        return
    fi
    if [ "$cloud" = slurm ]; then
        slurm_logs
    elif ! is_cluster "$cluster"; then
        start_api_server
        cluster_not_found
    else
        banner
        start_api_server
        job=$FAKE_CLOUD/clusters/$cluster/jobs/$id
        console follow "$job" SUCCEEDED sky_job_lines "$job" "$id"
        echo "✓ Job finished (status: $(job_status "$job" SUCCEEDED))."
    fi
}

slurm_logs() {
    job=$FAKE_CLOUD/hosts/$cluster/jobs/${id:-none}
    if ! is_connected "$cluster"; then
        cluster_not_found
        return
    fi
    if ! [ -d "$job" ]; then
        sed "s/999/$id/" "$captures/oumi-slurm/logs-unknown-job.out"
        code=1
        return
    fi
    banner
    sed -n '/Log location/p' "$captures/oumi-slurm/logs-completed.out" | sed "s/1\\.out/$id.out/"
    console follow "$job" COMPLETED slurm_job_log "$job"
}

console() { # command that prints the log
    if [ -n "$output_filepath" ]; then
        echo "Logs will be saved to: $output_filepath" | wrap
        width=1000000
        "$@" >"$output_filepath"
    else
        echo 'Logging to console...'
        "$@"
    fi
}

cluster_not_found() {
    banner
    echo "Cluster $cluster not found for cloud $cloud." | wrap
    traceback oumi-slurm/up-no-cluster "RuntimeError: Cluster [yellow]${cluster}[/yellow] not found."
}

# ---- oumi launch status

status() {
    if [ -z "$cloud" ]; then
        replay oumi/status-all
    fi
    banner
    if [ "$cloud" = slurm ]; then
        clusters=$(echo "${OUMI_SLURM_CONNECTIONS-}" | tr , ' ')
    else
        start_api_server
        clusters=$(ls "$FAKE_CLOUD/clusters" 2>/dev/null)
    fi
    printf '\n%s\n   Cloud: %s\n%s\n\n' "$(line ━ "$width")" "$cloud" "$(line ━ "$width")"
    if [ -z "$clusters" ]; then
        echo 'No matching clusters found.'
        return
    fi
    for name in $clusters; do
        [ -z "$cluster" ] || [ "$cluster" = "$name" ] || continue
        rows_of "$name" | box "$name"
    done
}

rows_of() { # cluster: its jobs, `id status` each
    if [ "$cloud" = slurm ]; then
        owner=$FAKE_CLOUD/hosts/$1 prefix='' success=COMPLETED ids=$(job_ids "$FAKE_CLOUD/hosts/$1")
    else
        [ "$(cluster_status "$1")" = UP ] || return 0
        owner=$FAKE_CLOUD/clusters/$1 prefix=JobStatus. success=SUCCEEDED
        ids=$(job_ids_newest_first "$owner")
    fi
    for job in $ids; do
        [ -z "$id" ] || [ "$id" = "$job" ] || continue
        echo "$job $prefix$(job_status "$owner/jobs/$job" "$success")"
    done
}

line() { # character, how many
    awk -v what="$1" -v count="$2" 'BEGIN { while (count-- > 0) printf "%s", what }'
}

# Draws the table of the rows on stdin in a box as wide as the terminal.
box() { # cluster
    LC_ALL=C awk -v width="$width" -v title=" Cluster: $1 " '
        function many(what, count,    text) { while (count-- > 0) text = text what; return text }
        function inside(text, length_) { print "│ " text many(" ", width - 4 - length_) " │" }
        function padded(text, to) { return text many(" ", to - length(text)) }
        { rows++; id[rows] = $1; sub(/^[^ ]* /, ""); status[rows] = $0 }
        END {
            title = substr(title, 1, width - 4)
            left = int((width - 2 - length(title)) / 2)
            print "╭" many("─", left) title many("─", width - 2 - length(title) - left) "╮"
            if (!rows) inside("[red]No matching jobs found.[/red]", 34)
            else {
                job = 3; word = 6
                for (i = 1; i <= rows; i++) {
                    if (length(id[i]) > job) job = length(id[i])
                    if (length(status[i]) > word) word = length(status[i])
                }
                all = job + word + 7
                inside("┏" many("━", job + 2) "┳" many("━", word + 2) "┓", all)
                inside("┃ " padded("Job", job) " ┃ " padded("Status", word) " ┃", all)
                inside("┡" many("━", job + 2) "╇" many("━", word + 2) "┩", all)
                for (i = 1; i <= rows; i++)
                    inside("│ " padded(id[i], job) " │ " padded(status[i], word) " │", all)
                inside("└" many("─", job + 2) "┴" many("─", word + 2) "┘", all)
            }
            print "╰" many("─", width - 2) "╯"
        }'
}

# ---- oumi launch cancel, down, stop

cancel() {
    for option in cloud cluster id; do
        eval "given=\$$option"
        if [ -z "$given" ]; then
            missing_option "'--$option'"
            return
        fi
    done
    if [ "$cloud" = slurm ]; then
        job=$FAKE_CLOUD/hosts/$cluster/jobs/$id
        if ! is_connected "$cluster"; then
            banner
            traceback oumi/cancel-local-other-process "ValueError: Cluster $cluster not found."
        elif ! [ -d "$job" ] || [ -e "$job/forgotten" ]; then
            sed "s/Job 999 not/Job $id not/" "$captures/oumi-slurm/cancel-unknown-job.out"
            code=1
        else
            banner
            end_unless_done COMPLETED
        fi
        return
    fi
    job=$FAKE_CLOUD/clusters/$cluster/jobs/$id
    if ! is_cluster "$cluster"; then
        banner
        traceback oumi/cancel-local-other-process "ValueError: Cluster $cluster not found."
    elif ! [ -d "$job" ]; then
        sed "s/(77)/($id)/; s/'skyc2'/'$cluster'/; s/Job 77 not/Job $id not/" "$captures/oumi-sky/cancel-unknown.out"
        code=1
    else
        banner
        start_api_server
        echo "${esc}[33mCancelling jobs ($id) on cluster '$cluster'...${esc}[0m"
        if end_unless_done SUCCEEDED; then
            echo "Cancelled job ID(s): $id"
        else
            echo 'No jobs cancelled. They may be in terminal states.'
        fi
    fi
}

end_unless_done() { # word for success
    is_done "$(job_status "$job" "$1")" && return 1
    has_knob noop || end_job "$job" CANCELLED
}

down() {
    banner
    if [ "$cloud" = slurm ]; then
        is_connected "$cluster" || echo "Cluster $cluster not found." | wrap
    elif is_cluster "$cluster"; then
        rm -rf "${FAKE_CLOUD:?}/clusters/$cluster"
    else
        echo "Cluster $cluster not found." | wrap
    fi
    echo "Cluster $cluster turned down!" | wrap
}

stop() {
    banner
    if [ "$cloud" != slurm ] && is_cluster "$cluster"; then
        case $(value "$FAKE_CLOUD/clusters/$cluster/cloud") in
            Slurm | Lambda | RunPod | Kubernetes) ;;
            *) put "$FAKE_CLOUD/clusters/$cluster/status" STOPPED ;;
        esac
    fi
    echo "Cluster $cluster stopped!" | wrap
    echo "Cluster $cluster stopped!" | wrap
    echo 'Use oumi launch down to turn it down.' | wrap
}

# ---- the command line

note_call oumi "$@"
if [ "${1-}" != launch ]; then
    echo "the fake oumi knows launch only, not: $*" >&2
    exit 2
fi
subcommand=${2-}
[ $# -lt 2 ] || shift 2
config='' cluster='' cloud='' id='' detach='' output_filepath=''
while [ $# -gt 0 ]; do
    case $1 in
        -c | --config) config=${2-} && shift ;;
        --cluster) cluster=${2-} && shift ;;
        --cloud) cloud=${2-} && shift ;;
        --id | --job-id) id=${2-} && shift ;;
        --output-filepath) output_filepath=${2-} && shift ;;
        --detach) detach=yes ;;
        *)
            echo "the fake oumi launch does not know $1" >&2
            exit 2
            ;;
    esac
    shift
done
knobs_for "oumi-$subcommand"
case $subcommand in
    up | status | logs | cancel | down | stop) perform "$subcommand" ;;
    which) replay oumi/launch-which ;;
    *)
        echo "the fake oumi knows no launch $subcommand" >&2
        exit 2
        ;;
esac
