# shellcheck shell=bash
# PostgreSQL: packages, files and configuration of its image. Sourced by `build`.
# The whole of bin and of the extensions; not the compiler of queries (LLVM).
names=("postgresql-$major" "postgresql-client-$major" tzdata ca-certificates busybox-static)
at=/usr/lib/postgresql/$major
contents() {
    local share=/usr/share/postgresql/$major
    mapfile -t files < <(cd "$packages" && find ".$at/bin" ".$at/lib" -maxdepth 1 -type f ! -name 'llvmjit*' | sed 's|^\.||')
    # initdb asks `locale` for the names that it makes collations of.
    put /usr/bin/locale "${files[@]}"
    mkdir -p "$tree$share" "$tree/var/lib/postgresql"
    cp -a "$packages$share/." "$tree$share/"
    rm -rf "$tree$share/man"
    config='{"Cmd":["postgres"],"User":"999:999","WorkingDir":"/var/lib/postgresql","ExposedPorts":{"5432/tcp":{}},'
    config+="\"Env\":[\"PATH=$at/bin:/usr/bin:/bin\",\"LANG=C.UTF-8\",\"PGDATA=/var/lib/postgresql/data/pg\"]}"
}
