//! Secrets: what is mounted into the instances, and what people read.
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use super::Parent;
use crate::database::certificates::{Certificates, Contents};
use crate::database::credentials::{Credentials, ROTATED_AT};
use crate::driver::Address;

/// All Secrets of a database.
pub(in crate::database) fn secrets(
    parent: &Parent<'_>,
    credentials: &Credentials,
    certificates: &Certificates,
) -> Vec<Secret> {
    let names = parent.names();
    let host = names.host();
    let roles = parent.driver.roles(&Address {
        host: &host,
        port: parent.engine.port,
        tls: parent.database.spec.tls.mode,
        owner_password: credentials.get("owner-password"),
        admin_password: credentials.get("admin-password"),
    });
    let mut passwords = secret(parent.owned(names.credentials()), credentials.data());
    if let Some(at) = &credentials.rotated_at {
        annotate(&mut passwords.metadata, [(ROTATED_AT.to_owned(), at.clone())].into());
    }
    vec![
        passwords,
        secret(parent.owned(names.owner()), bytes(roles.owner)),
        secret(parent.owned(names.admin()), bytes(roles.admin)),
        from_contents(parent.owned(names.tls()), &certificates.server),
        from_contents(parent.owned(names.ca()), &certificates.ca),
        from_contents(parent.owned(names.ca_key()), &certificates.authority),
    ]
}

fn from_contents(metadata: ObjectMeta, contents: &Contents) -> Secret {
    let mut made = secret(metadata, contents.data.clone());
    annotate(&mut made.metadata, contents.annotations.clone());
    made
}

fn secret(metadata: ObjectMeta, data: BTreeMap<String, ByteString>) -> Secret {
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

fn annotate(metadata: &mut ObjectMeta, annotations: BTreeMap<String, String>) {
    if !annotations.is_empty() {
        metadata.annotations.get_or_insert_default().extend(annotations);
    }
}

fn bytes(entries: BTreeMap<String, String>) -> BTreeMap<String, ByteString> {
    entries.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()
}
