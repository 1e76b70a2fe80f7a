//! Certificates: an authority for each database, and a server's certificate that is renewed at half of its life.
use std::collections::BTreeMap;

use culvert_pki::authority::{Authority, IssueError, LoadError};
use culvert_pki::key::{KeyError, KeyPair};
use culvert_pki::name::{Purpose, TrustDomain};
use culvert_pki::pem;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use time::{Duration, OffsetDateTime};

use super::names::Names;
use crate::reconcile::Error;

/// Life of a server's certificate; a new one is made at half of it.
const LIFE: Duration = Duration::days(365);
/// Annotation: end of the certificate, RFC 3339.
pub(super) const ENDS: &str = "data.culvert.dev/certificate-ends";
/// Annotation: names in the certificate.
const NAMES: &str = "data.culvert.dev/certificate-names";
/// Annotation: when the certificate has to be renewed, RFC 3339.
const RENEW: &str = "data.culvert.dev/certificate-renew";
/// Annotation: the `credentialsRotatedAt` of the spec that the certificate was made for.
const ROTATED_AT: &str = super::credentials::ROTATED_AT;

/// Contents of a Secret, with its annotations.
pub(super) struct Contents {
    pub(super) data: BTreeMap<String, ByteString>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// The three Secrets of certificates.
pub(super) struct Certificates {
    /// Key and certificate of the authority.
    pub(super) authority: Contents,
    /// The server's.
    pub(super) server: Contents,
    /// The authority's certificate, for clients.
    pub(super) ca: Contents,
    /// Whether a server's certificate was made in this round.
    pub(super) issued: bool,
}

/// The Secrets as they stand.
pub(super) struct Held<'a> {
    pub(super) authority: Option<&'a Secret>,
    pub(super) server: Option<&'a Secret>,
}

/// What shall stand in the Secrets at `now`.
pub(super) fn settle(
    names: Names<'_>,
    held: &Held<'_>,
    rotated_at: Option<&str>,
    now: OffsetDateTime,
) -> Result<Certificates, Error> {
    let domain = domain(names)?;
    let authority = match held.authority.map(|secret| load(secret, &domain)) {
        // More than one life of a certificate must be left: each below it shall live out its own.
        Some(Some(authority)) if authority.not_after() - now > LIFE * 2 => authority,
        _ => Authority::root(&domain, now).map_err(Error::making)?,
    };
    let ca = pem::certificates_to_pem([authority.certificate()]);
    let kept = held.server.filter(|secret| fit(secret, names, &ca, rotated_at, now));
    let (server, issued) = match kept {
        Some(secret) => (contents_of(secret), false),
        None => (issue(&authority, names, &ca, rotated_at, now).map_err(Error::making)?, true),
    };
    let key = authority.key().to_pem();
    Ok(Certificates {
        authority: contents([("ca.crt", ca.as_bytes()), ("ca.key", key.as_bytes())]),
        ca: contents([("ca.crt", ca.as_bytes())]),
        server,
        issued,
    })
}

/// The domain of a database's authority: a name that no other database has.
fn domain(names: Names<'_>) -> Result<TrustDomain, Error> {
    names.host().parse().map_err(|error| Error::making(format!("the name of the authority: {error}")))
}

fn load(secret: &Secret, domain: &TrustDomain) -> Option<Authority> {
    let certificate = pem::certificates_from_pem(text(secret, "ca.crt")?).ok()?.into_iter().next()?;
    let key = KeyPair::from_pem(text(secret, "ca.key")?).ok()?;
    let loaded: Result<Authority, LoadError> = Authority::load(&certificate, key, domain);
    loaded.ok().filter(|authority| authority.purpose() == Purpose::Root)
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// Whether the server's certificate can stay.
fn fit(secret: &Secret, names: Names<'_>, ca: &str, rotated_at: Option<&str>, now: OffsetDateTime) -> bool {
    let annotation = |key: &str| secret.annotations().get(key).map(String::as_str);
    let whole =
        ["tls.crt", "tls.key"].iter().all(|key| text(secret, key).is_some_and(|text| !text.is_empty()));
    let parsed = text(secret, "tls.key").is_some_and(|key| KeyPair::from_pem(key).is_ok())
        && text(secret, "tls.crt").is_some_and(|chain| pem::certificates_from_pem(chain).is_ok());
    let renew = annotation(RENEW).and_then(parse_time);
    whole
        && parsed
        && text(secret, "ca.crt") == Some(ca)
        && annotation(NAMES) == Some(names.server().join(",").as_str())
        && (rotated_at.is_none() || annotation(ROTATED_AT) == rotated_at)
        && renew.is_some_and(|renew| now < renew)
}

/// A certificate below an intermediate authority of its own, whose key is thrown away.
fn issue(
    authority: &Authority,
    names: Names<'_>,
    ca: &str,
    rotated_at: Option<&str>,
    now: OffsetDateTime,
) -> Result<Contents, IssueError> {
    let servers = authority.intermediate(Purpose::Servers, now)?;
    let key = KeyPair::generate().map_err(IssueError::from)?;
    let verified = key.verified_key().map_err(|error: KeyError| IssueError::from(error))?;
    let issued = servers.issue_server(&names.server(), &verified, now, LIFE)?;
    let chain = pem::certificates_to_pem(&issued.chain);
    let private = key.to_pem();
    let mut made =
        contents([("tls.crt", chain.as_bytes()), ("tls.key", private.as_bytes()), ("ca.crt", ca.as_bytes())]);
    let mut note = |key: &str, value: String| made.annotations.insert(key.to_owned(), value);
    note(ENDS, write_time(issued.not_after));
    note(RENEW, write_time(now + (issued.not_after - now) / 2));
    note(NAMES, names.server().join(","));
    if let Some(at) = rotated_at {
        note(ROTATED_AT, at.to_owned());
    }
    Ok(made)
}

fn contents<const N: usize>(pairs: [(&str, &[u8]); N]) -> Contents {
    let data = pairs.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).collect();
    Contents { data, annotations: BTreeMap::new() }
}

fn contents_of(secret: &Secret) -> Contents {
    let ours = [ENDS, RENEW, NAMES, ROTATED_AT];
    let data = secret.data.clone().unwrap_or_default();
    let data = data.into_iter().filter(|(key, _)| ["tls.crt", "tls.key", "ca.crt"].contains(&key.as_str()));
    let annotations = secret.annotations().clone();
    Contents {
        data: data.collect(),
        annotations: annotations.into_iter().filter(|(key, _)| ours.contains(&key.as_str())).collect(),
    }
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}

/// RFC 3339. A time that cannot be written is beyond any certificate; it then counts as due.
fn write_time(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn secret(contents: &Contents) -> Secret {
        let mut secret = Secret { data: Some(contents.data.clone()), ..Secret::default() };
        secret.annotations_mut().extend(contents.annotations.clone());
        secret
    }

    fn names() -> Names<'static> {
        Names::new("orders", "shop")
    }

    fn again(made: &Certificates, rotated_at: Option<&str>, now: OffsetDateTime) -> Certificates {
        let (authority, server) = (secret(&made.authority), secret(&made.server));
        let held = Held { authority: Some(&authority), server: Some(&server) };
        settle(names(), &held, rotated_at, now).unwrap()
    }

    fn first() -> Certificates {
        settle(names(), &Held { authority: None, server: None }, None, NOW).unwrap()
    }

    #[test]
    fn a_certificate_stays_until_half_of_its_life() {
        let made = first();
        assert!(made.issued);
        let later = again(&made, None, NOW + Duration::days(182));
        assert!(!later.issued);
        assert_eq!(later.server.data, made.server.data);
        let half = again(&made, None, NOW + Duration::days(184));
        assert!(half.issued);
        assert_eq!(half.ca.data, made.ca.data, "clients go on trusting the same authority");
    }

    #[test]
    fn a_rotation_makes_a_new_one_once() {
        let made = first();
        let rotated = again(&made, Some("t1"), NOW);
        assert!(rotated.issued);
        assert!(!again(&rotated, Some("t1"), NOW).issued);
    }

    #[test]
    fn what_was_damaged_by_hand_is_made_anew() {
        let mut made = first();
        made.server.data.insert("tls.key".to_owned(), ByteString(b"x".to_vec()));
        assert!(again(&made, None, NOW).issued);
        let mut other = first();
        other.authority.data.remove("ca.key");
        let mended = again(&other, None, NOW);
        assert!(mended.issued);
        assert_ne!(mended.ca.data, other.ca.data);
    }

    #[test]
    fn an_authority_is_not_taken_from_another_database() {
        let made = first();
        let authority = secret(&made.authority);
        let held = Held { authority: Some(&authority), server: None };
        let other = settle(Names::new("other", "shop"), &held, None, NOW).unwrap();
        assert_ne!(other.ca.data, made.ca.data);
    }
}
