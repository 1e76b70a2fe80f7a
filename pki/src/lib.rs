//! All of Culvert's cryptography: names, keys, certificates, tokens, TLS, sealing.
//!
//! The room is shaped by what it leaves out. It has no database, no clock, no
//! network and no async: the time is an argument and every rule can be tested in
//! microseconds. Callers never touch rcgen, x509-parser, webpki or AES-GCM, so a
//! review of how Culvert uses cryptography ends at this crate's border. What can
//! be read from outside is a type that exists only when it is valid
//! ([`token::JoinToken`], [`key::VerifiedKey`], [`verify::Peer`]).
//!
//! Mistakes a newcomer could make:
//!
//! - Trusting a chain because it leads to our root. All organisations share the
//!   root; [`verify::verify_peer`] also checks which authority signed.
//! - Taking more from a certificate request than its key ([`csr`]).
//! - Letting a TLS session resume where client certificates count ([`tls`]).
//! - Reading [`name::identity_of`] from a certificate nobody verified.
//! - Giving a secret `Display`. Secrets leave by `expose`, which is easy to find.

pub mod authority;
pub mod csr;
#[cfg(test)]
mod forge;
pub mod hpke;
pub mod key;
pub mod name;
pub mod pem;
pub mod pin;
mod random;
pub mod rejoin;
pub mod seal;
pub mod stream;
pub mod tls;
pub mod token;
pub mod verify;

pub use random::NoRandomness;
