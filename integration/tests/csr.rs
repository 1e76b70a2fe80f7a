//! Story: a certificate request may wish for anything; a certificate says only what
//! the controller decided, and a request that cannot be trusted gets none.

use anyhow::{Context, ensure};
use culvert_integration::gateway::person_certificate;
use culvert_integration::hand::{Hand, Held, enrol_request, refusal};
use culvert_integration::stage::Stage;
use culvert_pki::key::KeyPair;
use culvert_pki::name::Identity;
use culvert_pki::token::JoinToken;
use culvert_pki::{csr, pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A request of `key` that wishes for all that it must not get.
fn greedy(key: &KeyPair, victim: Uuid) -> anyhow::Result<Vec<u8>> {
    let mut params = CertificateParams::new(vec!["*.culvert.internal".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.distinguished_name.push(DnType::CommonName, "culvert:controller");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    for name in [format!("org/{victim}/agent/{victim}"), format!("replica/{victim}")] {
        params.subject_alt_names.push(SanType::URI(format!("spiffe://culvert.internal/{name}").try_into()?));
    }
    let pkcs8 = PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec());
    let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(params.serialize_request(&signer)?.der().to_vec())
}

/// A leaf for a client: one URI, no subject, no authority over anything.
fn is_plain_client(leaf: &[u8], uri: &str) -> anyhow::Result<()> {
    let (_, certificate) = X509Certificate::from_der(leaf)?;
    ensure!(certificate.subject().iter().next().is_none(), "a subject: {}", certificate.subject());
    ensure!(!certificate.is_ca(), "an authority");
    let names = certificate.subject_alternative_name()?.context("no name")?;
    ensure!(names.value.general_names == [GeneralName::URI(uri)], "{:?}", names.value.general_names);
    let purposes = certificate.extended_key_usage()?.context("no purpose")?.value;
    ensure!(purposes.client_auth && !purposes.server_auth && !purposes.any, "{purposes:?}");
    let usage = certificate.key_usage()?.context("no key usage")?.value;
    ensure!(!usage.key_cert_sign() && !usage.crl_sign() && usage.digital_signature(), "{usage}");
    for forbidden in [b"culvert:controller".as_slice(), b"system:masters", b"*.culvert.internal"] {
        ensure!(!leaf.windows(forbidden.len()).any(|window| window == forbidden), "a wish came through");
    }
    Ok(())
}

#[tokio::test]
async fn wishes_are_not_granted_to_an_agent() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let (cluster, victim) = (stage.admin.cluster_create("plant").await?, Uuid::now_v7());
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let (hand, key) = (Hand::new(&stage.controller)?, KeyPair::generate()?);
    let answer = hand.reach(&token).await?.enrol(enrol_request(&token, greedy(&key, victim)?)).await?;
    ensure!(answer.cluster_id == cluster, "{answer:?}");
    let held = Held::take(key, answer)?;
    let first = only_itself(&held, victim)?;

    // Nor by way of a renewal.
    let key = KeyPair::generate()?;
    let renewed = hand.reach_as(&held, true).await?.renew(greedy(&key, victim)?).await?;
    let renewed = Held::of(key, renewed.certificate.context("no certificate")?, renewed.generation)?;
    ensure!(only_itself(&renewed, victim)? == first, "another identity than before");
    ensure!(renewed.generation == held.generation + 1, "{}", renewed.generation);
    Ok(())
}

fn only_itself(held: &Held, victim: Uuid) -> anyhow::Result<Identity> {
    let identity = held.peer()?.identity;
    let Identity::Agent { org, agent } = identity else { anyhow::bail!("{identity:?} is not an agent") };
    ensure!(org != victim && agent != victim, "{identity:?}");
    is_plain_client(held.leaf()?, &identity.uri(&"culvert.internal".parse()?))?;
    Ok(identity)
}

#[tokio::test]
async fn wishes_are_not_granted_to_a_person() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let (key, victim) = (KeyPair::generate()?, Uuid::now_v7());
    let wish = pem::request_to_pem(&greedy(&key, victim)?);
    let answer = stage.admin.post("/certificates", &json!({ "csr_pem": wish })).await?.ok()?;
    let chain = pem::certificates_from_pem(answer["certificate_pem"].as_str().context("no certificate")?)?;
    let leaf = chain.first().context("an empty chain")?;
    let domain = "culvert.internal".parse()?;
    let identity = culvert_pki::name::identity_of(leaf, &domain)?;
    ensure!(matches!(identity, Identity::User { user, .. } if user != victim), "{identity:?}");
    is_plain_client(leaf, &identity.uri(&domain))?;

    let long = stage.admin.post("/certificates", &json!({ "csr_pem": wish, "ttl_seconds": 86_400 })).await?;
    ensure!(long.status == 400 && long.body["errors"][0]["field"] == "ttl_seconds", "{long:?}");
    // An agent's key cannot make itself a person: the API asks who is calling.
    let nobody = stage.controller.api().await?;
    ensure!(person_certificate(&nobody, 600).await.is_err());
    Ok(())
}

/// Requests that cannot be trusted, with what is wrong with each.
fn bad_requests() -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let weak = |text: &str| pem::request_from_pem(text).map_err(anyhow::Error::from);
    let signed_by = |algorithm| -> anyhow::Result<Vec<u8>> {
        let key = rcgen::KeyPair::generate_for(algorithm)?;
        Ok(CertificateParams::default().serialize_request(&key)?.der().to_vec())
    };
    let (mine, other) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut stolen = csr::make(&mine)?;
    let at = stolen.windows(mine.spki().len()).position(|window| window == mine.spki()).context("no key")?;
    stolen.splice(at..at + mine.spki().len(), other.spki());
    Ok(vec![
        ("RSA of 1024 bits", weak(include_str!("../../pki/tests/data/rsa1024.pem"))?),
        ("P-192", weak(include_str!("../../pki/tests/data/p192.pem"))?),
        ("an unusual curve", weak(include_str!("../../pki/tests/data/secp256k1.pem"))?),
        ("a curve given by its parameters", weak(include_str!("../../pki/tests/data/p256-explicit.pem"))?),
        ("RSA", signed_by(&rcgen::PKCS_RSA_SHA256)?),
        ("P-521", signed_by(&rcgen::PKCS_ECDSA_P521_SHA512)?),
        ("the key of another", stolen),
        ("nothing", Vec::new()),
        ("garbage", vec![0x5a; 400]),
        ("too much", vec![0x30; 20 * 1024]),
        ("an endless length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("deep nesting", [0x30, 0x80].repeat(4000)),
    ])
}

#[tokio::test]
async fn bad_requests_are_refused_and_cost_the_token_nothing() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let hand = Hand::new(&stage.controller)?;
    let reached = hand.reach(&token).await?;
    for (what, request) in bad_requests()? {
        let Err(status) = reached.enrol(enrol_request(&token, request)).await else {
            anyhow::bail!("a request with {what} was granted");
        };
        ensure!(refusal(&status) == "csr_invalid", "{what}: {status:?}");
    }
    stage.admin.attempt_stopped(&cluster, "csr_invalid").await?;
    let tokens = stage.admin.get(&format!("/clusters/{cluster}/join-tokens")).await?.ok()?;
    ensure!(tokens["items"][0]["state"] == "active", "{tokens}");
    hand.enrol(&token).await.map(drop)
}

#[tokio::test]
async fn bad_requests_of_people_name_the_field() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let mut texts: Vec<_> =
        bad_requests()?.into_iter().map(|(what, request)| (what, pem::request_to_pem(&request))).collect();
    texts.push(("no PEM", "hello".to_owned()));
    for (what, text) in texts {
        let answer = stage.admin.post("/certificates", &json!({ "csr_pem": text })).await?;
        ensure!(answer.status.is_client_error(), "{what}: {answer:?}");
        let size = answer.status == 413;
        ensure!(size || answer.body["errors"][0]["field"] == "csr_pem", "{what}: {answer:?}");
        ensure!(
            answer.body["request_id"].as_str().is_some_and(|id| id.starts_with("req_")),
            "{what}: {answer:?}"
        );
    }
    Ok(())
}
