# shellcheck shell=bash
# Where the demo keeps its things, and which of its ways it goes. Sourced by up
# and down, never run.
. "$(dirname "${BASH_SOURCE[0]}")/../integration/kube/kit.sh"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# CULVERT_DEMO_FOLDER: another folder for a demo beside this one, on another port.
work=$(realpath -m "${CULVERT_DEMO_FOLDER:-$root/.work/demo}")
# For start, stop and alive of the kit.
run=$work/run logs=$work/log
# A Unix socket's path is short, so the cluster's folder must be.
cluster=$work/kube
[ ${#cluster} -le 80 ] || cluster=/tmp/culvert-demo-$(id -u)
# What a demo would remove in the end has to be a demo's own.
[ ! -e "$work" ] || [ -d "$run" ] || [ -z "$(ls -A "$work")" ] || fail "$work holds something else than a demo"
programs=$root/target/$(rustc -vV | sed -n 's/^host: //p')/debug
release=culvert-agent namespace=culvert-agent name=demo

# What a demo that runs was started with.
[ ! -s "$work/settings" ] || . "$work/settings"

# What kubectl and helm remember of a cluster: the demo's own, and gone with it.
export KUBECACHEDIR=$work/kube-cache
# In the demo's Kubernetes, directly: as its owner, beside the tunnel.
direct() { "$kubectl" --kubeconfig "$owner" "$@"; }
# The command line with a configuration of its own: yours is not touched.
culvert() { CULVERT_CONFIG=$work/culvert.toml "$programs/culvert" --no-input "$@"; }
# The rights that the agent's chart gives to people, without the agent.
access() {
    # The version is for helms that were built without one.
    "$helm" template "$release" "$root/helm/agent" --namespace "$namespace" --kube-version 1.35 \
        --set controller.address="$address" --show-only templates/access.yaml
}
