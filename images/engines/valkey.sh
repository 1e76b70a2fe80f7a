# shellcheck shell=bash
# Valkey: packages, files and configuration of its image. Sourced by `build`.
names=(valkey-server valkey-tools tzdata ca-certificates busybox-static)
contents() {
    put /usr/bin/valkey-{server,cli,check-aof,check-rdb,benchmark}
    mkdir -p "$tree/var/lib/valkey"
    config='{"Cmd":["valkey-server"],"User":"999:999","WorkingDir":"/var/lib/valkey","ExposedPorts":{"6379/tcp":{}},'
    config+='"Env":["PATH=/usr/bin:/bin","LANG=C.UTF-8"]}'
}
