//! Certificates of people, for the gateway.

use std::time::Duration;

use culvert_pki::name::Identity;
use culvert_pki::{csr, pem};
use serde::{Deserialize, Serialize};

use super::{App, Error, Once};
use crate::domain::{Act, Actor, Caller, Time};

/// The longest life of a person's certificate.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// The shortest.
const LIFE_MIN: Duration = Duration::from_secs(60);

/// A person's certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PersonCertificate {
    /// Leaf and intermediate.
    pub certificate_pem: String,
    /// End of its validity.
    pub not_after: Time,
}

impl App {
    /// Certifies the key of a request for the caller, who must be a person.
    pub async fn issue_certificate(
        &self,
        caller: &Caller,
        csr_pem: &str,
        life: Option<u64>,
        once: Option<&Once>,
    ) -> Result<PersonCertificate, Error> {
        let Actor::User { id, .. } = caller.actor() else {
            return Err(Error::Denied {
                code: "not_a_person",
                reason: "certificates are for people, and you are asking with an API token".to_owned(),
                next: "use the API token itself as bearer at the gateway".to_owned(),
            });
        };
        let life = life.map_or(LIFE_MAX, Duration::from_secs);
        if !(LIFE_MIN..=LIFE_MAX).contains(&life) {
            return Err(Error::invalid("ttl_seconds", "out_of_range", "must be from 60 to 3600"));
        }
        let bad = |detail: String| Error::invalid("csr_pem", "csr_invalid", detail);
        let der = pem::request_from_pem(csr_pem).map_err(|e| bad(e.to_string()))?;
        let key = csr::public_key(&der).map_err(|e| bad(e.to_string()))?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let identity = Identity::User { org: caller.org().uuid(), user: id.uuid() };
        let life = time::Duration::try_from(life).map_err(|e| Error::internal("no certificate", e))?;
        let issued = self
            .people_authority(caller.org())?
            .issue_identity(identity, &key, now, life)
            .map_err(|e| Error::internal("no certificate", e))?;
        tx.audit(Act::CertificateIssued, id, format!("serial {}", issued.serial), now).await?;
        let made = PersonCertificate {
            certificate_pem: pem::certificates_to_pem(&issued.chain),
            not_after: issued.not_after,
        };
        self.remember(caller, &tx, once, &made).await?;
        tx.commit().await?;
        Ok(made)
    }
}
