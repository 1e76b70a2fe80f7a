//! Who a certificate speaks for: the trust domain, and the URI names inside it.
//!
//! Every name is `spiffe://<trust domain>/…`. An [`Identity`] is the name of a
//! leaf, an [`Purpose`] the name of the authority that may sign such leaves. Both
//! have exactly one spelling, so that two names are equal when their bytes are.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::token::TokenId;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The trust domain is not a lower-case DNS name of at most 200 bytes.
    #[error("a trust domain is a lower-case DNS name such as culvert.internal")]
    Domain,
    /// The URI names no identity known here, or spells it in another way.
    #[error("the URI is not a name that Culvert gives")]
    Uri,
    /// The URI belongs to another trust domain.
    #[error("the name belongs to another trust domain")]
    ForeignDomain,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The certificate does not carry exactly one URI and no other name.
    #[error("the certificate must carry one URI and no other name")]
    NotOneUri,
}

/// The name under which one installation of Culvert issues identities; also the
/// DNS suffix of its doors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Bytes a trust domain may have: the longest name made from it,
    /// `<token id>.agents.<domain>`, must fit into the 253 of a DNS name.
    pub const MAX_LEN: usize = 200;

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The server name of the agents' door for an agent that has a certificate.
    #[must_use]
    pub fn agents_server_name(&self) -> String {
        format!("agents.{}", self.0)
    }

    /// The server name an agent uses while it redeems the token `id`, so that a
    /// handshake that fails can still be told to the right cluster.
    #[must_use]
    pub fn enrolment_server_name(&self, id: &TokenId) -> String {
        format!("{id}.agents.{}", self.0)
    }

    /// The server name of the kubectl gateway.
    #[must_use]
    pub fn gateway_server_name(&self) -> String {
        format!("kube.{}", self.0)
    }

    /// The end of the names of replicas' doors.
    #[must_use]
    pub fn replicas_server_name(&self) -> String {
        format!("replicas.{}", self.0)
    }

    /// The server name of the door of one replica, for others.
    #[must_use]
    pub fn replica_server_name(&self, replica: Uuid) -> String {
        format!("{replica}.replicas.{}", self.0)
    }

    /// The token id in a name made by [`Self::enrolment_server_name`].
    #[must_use]
    pub fn token_id_of(&self, server_name: &str) -> Option<TokenId> {
        let label = server_name.strip_suffix(&self.0)?.strip_suffix(".agents.")?;
        label.parse().ok()
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = !text.is_empty() && text.len() <= Self::MAX_LEN;
        // A last label of digits would make the name an IP address to a parser.
        let numeric_end = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if fits && !numeric_end && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Domain)
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    let body = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(body)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What a leaf certificate speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An agent in a customer's cluster.
    Agent {
        /// The organisation that owns the cluster.
        org: Uuid,
        /// The agent.
        agent: Uuid,
    },
    /// A person.
    User {
        /// The organisation in whose name the person acts.
        org: Uuid,
        /// The person.
        user: Uuid,
    },
    /// One process of the control plane.
    Replica {
        /// The process.
        replica: Uuid,
    },
}

impl Identity {
    /// The one spelling of this identity in `domain`.
    #[must_use]
    pub fn uri(&self, domain: &TrustDomain) -> String {
        match self {
            Self::Agent { org, agent } => format!("spiffe://{domain}/org/{org}/agent/{agent}"),
            Self::User { org, user } => format!("spiffe://{domain}/org/{org}/user/{user}"),
            Self::Replica { replica } => format!("spiffe://{domain}/replica/{replica}"),
        }
    }

    /// Reads what [`Self::uri`] writes, and nothing else.
    pub fn parse(uri: &str, domain: &TrustDomain) -> Result<Self, NameError> {
        let path = path_in(uri, domain)?;
        let mut parts = path.split('/');
        let read = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
        match read {
            (Some("org"), Some(org), Some("agent"), Some(agent), None) => {
                Ok(Self::Agent { org: id(org)?, agent: id(agent)? })
            }
            (Some("org"), Some(org), Some("user"), Some(user), None) => {
                Ok(Self::User { org: id(org)?, user: id(user)? })
            }
            (Some("replica"), Some(replica), None, None, None) => Ok(Self::Replica { replica: id(replica)? }),
            _ => Err(NameError::Uri),
        }
    }

    /// The organisation the identity belongs to; replicas belong to none.
    #[must_use]
    pub fn org(&self) -> Option<Uuid> {
        match self {
            Self::Agent { org, .. } | Self::User { org, .. } => Some(*org),
            Self::Replica { .. } => None,
        }
    }

    /// The one authority whose signature makes this identity true.
    #[must_use]
    pub fn issuer(&self) -> Purpose {
        match self {
            Self::Agent { org, .. } => Purpose::Agents(*org),
            Self::User { org, .. } => Purpose::People(*org),
            Self::Replica { .. } => Purpose::Servers,
        }
    }
}

/// An authority, by what it may sign. The certificate of every authority
/// carries this as its only URI name, and that is how a verifier learns, from
/// nothing but the root's signature, whose leaves the authority may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signs the other authorities and nothing else.
    Root,
    /// Signs the agents of one organisation.
    Agents(Uuid),
    /// Signs the people of one organisation.
    People(Uuid),
    /// Signs servers and replicas of the control plane.
    Servers,
}

impl Purpose {
    /// The one spelling of this authority in `domain`.
    #[must_use]
    pub fn uri(&self, domain: &TrustDomain) -> String {
        match self {
            Self::Root => format!("spiffe://{domain}/ca/root"),
            Self::Agents(org) => format!("spiffe://{domain}/org/{org}/ca/agents"),
            Self::People(org) => format!("spiffe://{domain}/org/{org}/ca/people"),
            Self::Servers => format!("spiffe://{domain}/ca/servers"),
        }
    }

    /// Reads what [`Self::uri`] writes, and nothing else.
    pub fn parse(uri: &str, domain: &TrustDomain) -> Result<Self, NameError> {
        let path = path_in(uri, domain)?;
        let mut parts = path.split('/');
        let read = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
        match read {
            (Some("ca"), Some("root"), None, None, None) => Ok(Self::Root),
            (Some("ca"), Some("servers"), None, None, None) => Ok(Self::Servers),
            (Some("org"), Some(org), Some("ca"), Some("agents"), None) => Ok(Self::Agents(id(org)?)),
            (Some("org"), Some(org), Some("ca"), Some("people"), None) => Ok(Self::People(id(org)?)),
            _ => Err(NameError::Uri),
        }
    }

    /// One word for logs and for the common name of the certificate.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Agents(_) => "agents",
            Self::People(_) => "people",
            Self::Servers => "servers",
        }
    }
}

fn path_in<'u>(uri: &'u str, domain: &TrustDomain) -> Result<&'u str, NameError> {
    let rest = uri.strip_prefix("spiffe://").ok_or(NameError::Uri)?;
    let (host, path) = rest.split_once('/').ok_or(NameError::Uri)?;
    if host == domain.as_str() { Ok(path) } else { Err(NameError::ForeignDomain) }
}

fn id(text: &str) -> Result<Uuid, NameError> {
    let id = Uuid::try_parse(text).map_err(|_| NameError::Uri)?;
    // `try_parse` also takes braces, capitals and bare hexadecimal.
    if id.hyphenated().to_string() == text { Ok(id) } else { Err(NameError::Uri) }
}

/// The identity in a leaf, read without checking who signed it.
///
/// Use it for logs, or on a certificate that is trusted already; to trust one,
/// call [`crate::verify::verify_peer`].
pub fn identity_of(certificate: &CertificateDer<'_>, domain: &TrustDomain) -> Result<Identity, NameError> {
    Identity::parse(&sole_uri(certificate)?, domain)
}

/// The authority a CA certificate says it is, read without checking who signed it.
pub fn purpose_of(certificate: &CertificateDer<'_>, domain: &TrustDomain) -> Result<Purpose, NameError> {
    Purpose::parse(&sole_uri(certificate)?, domain)
}

/// The URI of a certificate that has no other alternative name.
pub(crate) fn sole_uri(certificate: &[u8]) -> Result<String, NameError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NameError::Certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| NameError::Certificate)?;
    match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::URI(uri)]) => Ok((*uri).to_owned()),
        _ => Err(NameError::NotOneUri),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain() -> TrustDomain {
        "culvert.internal".parse().unwrap()
    }

    #[test]
    fn a_trust_domain_is_a_lower_case_dns_name() {
        for good in ["culvert.internal", "localhost", "a-b.c1.example", "1.example"] {
            assert_eq!(good.parse::<TrustDomain>().unwrap().as_str(), good);
        }
        let long = vec!["abcdefghi"; 21].join(".");
        for bad in ["", ".", "a.", ".a", "A.b", "a b", "-a.b", "a-.b", "a/b", "a_b", "é.b", "10.0.0.1", &long]
        {
            assert_eq!(bad.parse::<TrustDomain>(), Err(NameError::Domain), "{bad:?}");
        }
    }

    #[test]
    fn server_names_carry_the_token_id_and_nothing_else_does() {
        let id: TokenId = "aaaaaaaaaaaaa".parse().unwrap();
        let name = domain().enrolment_server_name(&id);
        assert_eq!(name, "aaaaaaaaaaaaa.agents.culvert.internal");
        assert_eq!(domain().token_id_of(&name), Some(id));
        for other in
            ["agents.culvert.internal", "x.agents.culvert.internal", "aaaaaaaaaaaaa.agents.other.internal"]
        {
            assert_eq!(domain().token_id_of(other), None, "{other}");
        }
    }

    #[test]
    fn an_identity_has_one_spelling() {
        let (org, agent) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let uri = Identity::Agent { org, agent }.uri(&domain());
        assert_eq!(
            uri,
            "spiffe://culvert.internal/org/00000000-0000-0000-0000-000000000001\
             /agent/00000000-0000-0000-0000-000000000002"
        );
        let org = "00000000-0000-0000-0000-00000000000a";
        for bad in [
            String::new(),
            "https://culvert.internal/replica/x".to_owned(),
            format!("spiffe://culvert.internal/replica/{}", org.to_uppercase()),
            format!("spiffe://culvert.internal/replica/{{{org}}}"),
            format!("spiffe://culvert.internal/replica/{}", org.replace('-', "")),
            format!("spiffe://culvert.internal/replica/{org}/"),
            format!("spiffe://culvert.internal//replica/{org}"),
            format!("spiffe://culvert.internal/org/{org}/agent/{org}/user/{org}"),
            format!("spiffe://culvert.internal/org/{org}/ca/agents"),
            format!("spiffe://culvert.internal/org/{org}/agent/{org}?x"),
        ] {
            assert_eq!(Identity::parse(&bad, &domain()), Err(NameError::Uri), "{bad:?}");
        }
        let foreign = format!("spiffe://culvert.example/replica/{org}");
        assert_eq!(Identity::parse(&foreign, &domain()), Err(NameError::ForeignDomain));
    }

    fn identities() -> impl Strategy<Value = Identity> {
        (any::<u128>(), any::<u128>(), 0..3).prop_map(|(a, b, kind)| {
            let (a, b) = (Uuid::from_u128(a), Uuid::from_u128(b));
            match kind {
                0 => Identity::Agent { org: a, agent: b },
                1 => Identity::User { org: a, user: b },
                _ => Identity::Replica { replica: a },
            }
        })
    }

    proptest! {
        #[test]
        fn identities_and_purposes_survive_their_uri(identity in identities()) {
            prop_assert_eq!(Identity::parse(&identity.uri(&domain()), &domain()), Ok(identity));
            let purpose = identity.issuer();
            prop_assert_eq!(Purpose::parse(&purpose.uri(&domain()), &domain()), Ok(purpose));
            // No name is both: an authority can never pass for a leaf.
            prop_assert!(Identity::parse(&purpose.uri(&domain()), &domain()).is_err());
            prop_assert!(Purpose::parse(&identity.uri(&domain()), &domain()).is_err());
        }

        #[test]
        fn whatever_parses_is_spelled_as_we_spell_it(text in "(spiffe://culvert\\.internal/)?(org|replica|agent|user|ca|[0-9a-f-]{36}|/){0,6}") {
            if let Ok(identity) = Identity::parse(&text, &domain()) {
                prop_assert_eq!(identity.uri(&domain()), text);
            }
        }

        #[test]
        fn garbage_is_refused_calmly(text in ".{0,300}", der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = text.parse::<TrustDomain>();
            prop_assert!(Identity::parse(&text, &domain()).is_err());
            prop_assert!(identity_of(&CertificateDer::from(der), &domain()).is_err());
        }
    }
}
