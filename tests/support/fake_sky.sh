#!/bin/sh
# A `sky` that answers as SkyPilot 0.12.3 did, from the state in $FAKE_CLOUD. See fake_lib.sh.
# shellcheck disable=SC2015,SC2086,SC2317 source=fake_lib.sh
program=$0
[ -L "$program" ] && program=$(readlink "$program")
. "$(dirname -- "$program")/fake_lib.sh"

usage_error() { # subcommand, arguments in the usage, message
    printf 'Usage: sky %s [OPTIONS] %s\n' "$1" "$2" >&2
    printf "Try 'sky %s -h' for help.\n\nError: %s\n" "$1" "$3" >&2
    code=2
}

not_up() { # what is skipped, cluster; colours on or off
    status=$(cluster_status "$2")
    on='' off='' bold='' end=''
    if [ "$3" = colour ]; then
        on="${esc}[33m" off="${esc}[0m" bold="${esc}[1m" end="${esc}[0m${esc}[0m"
    fi
    printf '%s' "sky.exceptions.ClusterNotUpError: $on$1: skipped for cluster '$2' (status: $status). " \
        "It is only allowed for UP and AUTOSTOPPING clusters.$off"
    if [ "$status" = INIT ]; then
        printf '%s' " Wait for a launch to finish, or use this command to try to transition the cluster to UP: " \
            "${bold}sky start $2$end"
    fi
    echo
}

json_text() {
    printf '"%s"' "$(printf %s "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

json_number() { # file
    value "$1" null
}

# ---- sky queue

queue() {
    clusters=$positional
    [ -n "$clusters" ] || clusters=$(ls "$FAKE_CLOUD/clusters" 2>/dev/null)
    start_api_server
    printf 'Fetching job queue for: %s\n' "$(echo $clusters | sed 's/ /, /g')"
    answered=
    for cluster in $clusters; do
        if is_cluster "$cluster" && [ "$(cluster_status "$cluster")" = UP ]; then
            answered="$answered $cluster"
            continue
        fi
        printf "Failed to get the job queue for cluster '%s'.\n  " "$cluster"
        if is_cluster "$cluster"; then
            not_up 'Getting the job queue' "$cluster" plain
        else
            echo "sky.exceptions.ClusterDoesNotExist: Cluster '$cluster' does not exist."
        fi
    done
    [ -n "$answered" ] || {
        echo '{}'
        return
    }
    echo '{'
    comma=
    for cluster in $answered; do
        [ -z "$comma" ] || echo ,
        comma=,
        queue_of "$cluster"
    done
    printf '\n}\n'
}

queue_of() { # cluster
    ids=$(job_ids_newest_first "$FAKE_CLOUD/clusters/$1")
    printf '  %s: [' "$(json_text "$1")"
    [ -n "$ids" ] || {
        printf ']'
        return
    }
    between=
    for id in $ids; do
        job=$FAKE_CLOUD/clusters/$1/jobs/$id
        printf '%s\n' "$between"
        between=,
        cat <<END
    {
      "job_id": $id,
      "job_name": $(json_text "$(value "$job/name")"),
      "username": "root",
      "user_hash": "fcd1e5cf",
      "submitted_at": $(json_number "$job/submitted_at"),
      "start_at": $(json_number "$job/start_at"),
      "end_at": $(job_status "$job" SUCCEEDED >/dev/null && json_number "$job/end_at"),
      "resources": $(json_text "$(value "$job/resources" '1x[CPU:1]')"),
      "status": "$(job_status "$job" SUCCEEDED)",
      "log_path": "~/sky_logs/sky-2026-11-24-19-07-32-946443",
      "metadata": {}
END
        printf '    }'
    done
    printf '\n  ]'
}

# ---- sky status

status() {
    start_api_server
    clusters=$positional
    [ -n "$clusters" ] || clusters=$(ls "$FAKE_CLOUD/clusters" 2>/dev/null)
    known=
    for cluster in $clusters; do
        if is_cluster "$cluster"; then
            known="$known $cluster"
        else
            printf 'Cluster(s) not found: %s.\n' "${esc}[1m$cluster${esc}[0m"
        fi
    done
    [ -n "$known" ] || {
        echo '[]'
        return
    }
    printf '['
    between=
    for cluster in $known; do
        printf '%s\n' "$between"
        between=,
        status_of "$cluster" "$FAKE_CLOUD/clusters/$cluster"
    done
    printf '\n]\n'
}

status_of() { # cluster, its folder
    cloud=$(value "$2/cloud" Slurm)
    cat <<END
  {
    "name": $(json_text "$1"),
    "launched_at": $(json_number "$2/launched_at"),
    "last_use": "",
    "status": "$(cluster_status "$1")",
    "autostop": $(value "$2/autostop" -1),$(price_of "$2")
    "to_down": false,
    "owner": null,
    "metadata": null,
    "cluster_hash": "e19afcb9-3af9-4ab4-bd84-3b6a836e2578",
    "cluster_ever_up": true,
    "status_updated_at": 0,
    "user_hash": "fcd1e5cf",
    "user_name": "root",
    "config_hash": null,
    "workspace": "default",
    "last_creation_yaml": null,
    "last_creation_command": null,
    "is_managed": false,
    "last_event": null,
    "launch_status_reason": null,
    "resources_str": "1x(cpus=1, mem=1, ...)",
    "resources_str_full": "1x(cpus=1, mem=1, disk=256)",
    "nodes": 1,
    "cloud": "$cloud",
    "region": "labslurm",
    "cpus": "1",
    "memory": "1",
    "accelerators": null,
    "labels": {},
    "cluster_name_on_cloud": null,
    "node_names": "job7-vm",
    "priority": 0,
    "priority_class": null,
    "links": null
END
    printf '  }'
}

# SkyPilot 0.12 does not say; newer ones may.
price_of() { # folder of the cluster
    [ -e "$1/price" ] && printf '\n    "hourly_price": %s,' "$(value "$1/price")"
}

# ---- sky logs

logs() {
    set -- $positional
    cluster=${1-}
    id=${2-}
    job=$FAKE_CLOUD/clusters/$cluster/jobs/${id:-none}
    start_api_server
    if [ -n "$only_status" ]; then
        printf '%s\n' "${esc}[33mGetting job status...${esc}[0m"
    else
        printf '%s\n' "${esc}[33mTailing logs of job $id on cluster '$cluster'...${esc}[0m"
    fi
    if ! is_cluster "$cluster"; then
        printf '%s\n' "sky.exceptions.ClusterDoesNotExist: ${esc}[33mCluster '$cluster' does not exist.${esc}[0m" >&2
        code=1
    elif [ "$(cluster_status "$cluster")" != UP ]; then
        not_up 'Tailing logs' "$cluster" colour >&2
        code=1
    elif [ -n "$only_status" ]; then
        only_status
    elif ! [ -d "$job" ]; then
        echo "Job $id not found (see \`sky queue\`)."
        code=102
        echo "srun: error: vm: task 0: Exited with exit code 102"
    elif [ -n "$no_follow" ]; then
        job_status "$job" SUCCEEDED >/dev/null
        sky_job_log "$job" "$id" | tail -n "${tail:-1000}"
        finished
    else
        follow "$job" SUCCEEDED sky_job_log "$job" "$id"
        finished
    fi
}

finished() {
    status=$(job_status "$job" SUCCEEDED)
    is_done "$status" || return 0
    printf '%s\n' "${esc}[0m${esc}[32m✓ Job finished (status: $status).${esc}[0m${esc}[0m"
    exit_code_of "$status"
    [ "$code" = 0 ] || echo "srun: error: vm: task 0: Exited with exit code $code"
}

only_status() {
    if ! [ -d "$job" ]; then
        printf 'Job %s: None\nJob %s not found\n' "$id" "$id"
        code=102
        return
    fi
    status=$(job_status "$job" SUCCEEDED)
    echo "Job $id: $status"
    exit_code_of "$status"
}

exit_code_of() {
    case $1 in
        SUCCEEDED) code=0 ;;
        CANCELLED) code=103 ;;
        FAILED*) code=100 ;;
        *) code=101 ;;
    esac
}

# ---- sky cancel, down, stop

cancel() {
    set -- $positional
    cluster=${1-}
    [ $# = 0 ] || shift
    start_api_server
    if ! is_cluster "$cluster"; then
        usage_error cancel 'CLUSTER [JOBS]...' "Cluster '$cluster' does not exist."
        return
    elif [ "$(cluster_status "$cluster")" != UP ]; then
        not_up 'Cancelling jobs' "$cluster" colour >&2
        code=1
        return
    fi
    printf '%s\n' "${esc}[33mCancelling jobs ($(echo "$*" | sed 's/ /, /g')) on cluster '$cluster'...${esc}[0m"
    cancelled=
    for id; do
        job=$FAKE_CLOUD/clusters/$cluster/jobs/$id
        [ -d "$job" ] && ! is_done "$(job_status "$job" SUCCEEDED)" || continue
        has_knob noop || end_job "$job" CANCELLED
        cancelled="$cancelled, $id"
    done
    if [ -n "$cancelled" ]; then
        echo "Cancelled job ID(s): ${cancelled#, }"
    else
        echo 'No jobs cancelled. They may be in terminal states.'
    fi
}

down() {
    cluster=${positional# }
    start_api_server
    is_cluster "$cluster" || {
        not_found
        return
    }
    rm -rf "${FAKE_CLOUD:?}/clusters/$cluster"
    sed "s/skyc3/$cluster/" "$captures/sky/down.out"
}

stop() {
    cluster=${positional# }
    start_api_server
    is_cluster "$cluster" || {
        not_found
        return
    }
    case $(value "$FAKE_CLOUD/clusters/$cluster/cloud" Slurm) in
        Slurm | Lambda | RunPod | Kubernetes)
            sed "s/lam1/$cluster/" "$captures/sky/stop-unsupported.out"
            ;;
        *)
            put "$FAKE_CLOUD/clusters/$cluster/status" STOPPED
            grep -v 'has no provision yaml' "$captures/sky/stop.out" | sed "s/lam1/$cluster/"
            ;;
    esac
}

not_found() {
    sed "s/nosuch/$cluster/" "$captures/sky/down-nocluster.out"
}

# ---- the command line

note_call sky "$@"
subcommand=${1-}
[ $# = 0 ] || shift
positional='' no_follow='' only_status='' tail=''
while [ $# -gt 0 ]; do
    case $1 in
        -o | --output) [ "${2-}" = json ] && shift ;;
        --tail) tail=${2-} && shift ;;
        --tail=*) tail=${1#--tail=} ;;
        --no-follow) no_follow=yes ;;
        --status) only_status=yes ;;
        -y | --yes | --output=json) ;;
        -*)
            knobs_for "sky-$subcommand"
            perform usage_error "$subcommand" '[ARGS]...' "No such option: $1"
            ;;
        *) positional="$positional $1" ;;
    esac
    shift
done
positional=${positional# }
case $subcommand in
    --version | -v)
        knobs_for sky-version
        perform cat "$captures/sky/version.out"
        ;;
    queue | status | logs | cancel | down | stop)
        knobs_for "sky-$subcommand"
        perform "$subcommand"
        ;;
    *)
        knobs_for sky-other
        perform usage_error "$subcommand" '[ARGS]...' "No such command '$subcommand'."
        ;;
esac
