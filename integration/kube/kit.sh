# shellcheck shell=bash
# What every script of the kit needs: where things are, how a process is started,
# recognised and ended, and how long to wait. Sourced, never run.
set -euo pipefail
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$kit/versions"

say()  { printf '%s\n' "$*" >&2; }
fail() { say "${0##*/}: $*"; exit 1; }

# --- cache ------------------------------------------------------------------
cache=${CULVERT_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME or CULVERT_CACHE must be set}/.cache}/culvert}

# recipe FILE...: a short name for the content of these files and folders.
recipe() {
    (cd "$kit" && find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
}
# Where the programs of this recipe are or will be. Nothing in it ever changes:
# it appears whole, by a rename, or not at all.
programs_folder() {
    printf '%s/kube-%s-%s\n' "$cache" "$KUBERNETES" "$(recipe versions build programs)"
}
# use_programs: sets `bin`, building first where there is nothing yet.
use_programs() {
    bin=$(programs_folder)/bin
    [ -d "$bin" ] || "$kit/build" >/dev/null
}

# --- one cluster ------------------------------------------------------------
# use_cluster FOLDER: the settings that `up` wrote down when it made the cluster.
use_cluster() {
    dir=$(realpath -m "${1:?the folder of a cluster}")
    pki=$dir/pki run=$dir/run logs=$dir/log
    [ ! -s "$dir/settings" ] || . "$dir/settings"
}
need_cluster() {
    use_cluster "$@"
    [ -s "$dir/settings" ] || fail "$dir is not the folder of a cluster"
    use_programs
}
kubectl() { "$bin/kubectl" --kubeconfig "$dir/root.kubeconfig" "$@"; }

# --- waiting ----------------------------------------------------------------
# await SECONDS WHAT COMMAND...: run the command until it succeeds, and give up
# with the last thing that it said: at the limit, or when it returns 9.
await() {
    local end=$((SECONDS + $1)) what=$2 last code
    shift 2
    until last=$("$@" 2>&1); do
        code=$?
        [ "$code" != 9 ] && [ "$SECONDS" -lt "$end" ] || fail "waited in vain for $what: ${last:-no word from it} (logs in $logs)"
        sleep 0.1
    done
}

# --- processes --------------------------------------------------------------
# A process is remembered as its number and its start time, in clock ticks since
# boot. The pair tells it apart from a later process with the same number. One that
# has ended and only waits for its parent to hear of it counts as gone.
born() { { sed -n 's/^.*) [^ZX] //p' "/proc/$1/stat" 2>/dev/null || true; } | cut -d' ' -f19; }
alive() {
    local pid time
    [ -s "$run/$1.pid" ] && read -r pid time <"$run/$1.pid" && [ -n "$time" ] && [ "$(born "$pid")" = "$time" ]
}
# start NAME COMMAND...: in the background, in a session of its own, with a log.
start() {
    local name=$1
    shift
    ! alive "$name" || fail "$name runs already"
    # Not one open file of the caller goes along, or a lock that it holds would
    # be held for as long as the cluster lives.
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || eval "exec $fd>&-"
        done
        exec setsid "$@"
    ) >"$logs/$name.log" 2>&1 </dev/null &
    echo "$! $(born $!)" >"$run/$name.pid"
}
# stop NAME [SIGNAL]: end it and wait until it is gone, by force after 10 s.
stop() {
    local pid tries=100
    if alive "$1"; then
        read -r pid _ <"$run/$1.pid"
        kill "-${2:-TERM}" "$pid" 2>/dev/null || true
        while alive "$1" && [ $((tries--)) -gt 0 ]; do sleep 0.1; done
        ! alive "$1" || kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$run/$1.pid"
}
