# shellcheck shell=bash
# Certificates and kubeconfigs of one cluster. Sourced after kit.sh.

# ca NAME: a certificate authority.
ca() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" \
        -keyout "$pki/$1.key" -out "$pki/$1.crt" -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
}
# issue NAME CA SUBJECT [ALTERNATIVE-NAMES]: a key and its certificate.
issue() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "$3" \
        -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -keyout "$pki/$1.key" -out "$pki/$1.crt" \
        -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
        -addext extendedKeyUsage=serverAuth,clientAuth ${4:+-addext "subjectAltName=$4"} 2>/dev/null
}
# kubeconfig FILE USER-FIELDS: everything inlined, so that the file can be moved.
kubeconfig() {
    (umask 077 && cat >"$1") <<YAML
apiVersion: v1
kind: Config
current-context: fixture
contexts:
- name: fixture
  context: {cluster: fixture, user: fixture}
clusters:
- name: fixture
  cluster:
    server: https://$API_IP:$API_PORT
    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
users:
- name: fixture
  user: {$2}
YAML
}
# with_certificate NAME: the fields of a user who shows that certificate.
with_certificate() {
    printf 'client-certificate-data: %s, client-key-data: %s' \
        "$(base64 -w0 "$pki/$1.crt")" "$(base64 -w0 "$pki/$1.key")"
}
