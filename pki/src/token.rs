//! The secrets people and programs carry: join tokens, bearer tokens, sign-in codes.
//!
//! None of them has `Display`: the text leaves only by a call to `expose`, which
//! is easy to find in a review. The store keeps a [`SecretHash`], never the text.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::pin::Pin;
use crate::random::{self, NoRandomness};

/// Bytes of the longest token that is looked at; a join token with two pins has
/// about 160.
const MAX_TOKEN: usize = 512;

/// Why the text of a token or code was refused. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// Longer than any token.
    #[error("the token is too long; was something else pasted with it?")]
    TooLong,
    /// Does not begin as any token of Culvert does.
    #[error("this is not a Culvert token")]
    NotAToken,
    /// A token of Culvert, of another kind.
    #[error("this is a {found}, and a {wanted} is needed")]
    WrongKind {
        /// What it is.
        found: TokenKind,
        /// What is needed here.
        wanted: TokenKind,
    },
    /// The checksum does not fit: a character is missing or wrong.
    #[error("the token is incomplete or mistyped: its checksum does not fit")]
    Checksum,
    /// The checksum fits, but a part does not have its form.
    #[error("the token's {0} does not have its form")]
    Part(&'static str),
    /// A sign-in code has twelve letters and digits.
    #[error("a sign-in code has twelve letters and digits, as in ABCD-EFGH-JKMN")]
    Code,
}

/// The kinds of token, told apart by their first four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `cvj1`: lets one agent enrol.
    Join,
    /// `cvs1`: a person's session.
    Session,
    /// `cva1`: a machine's access to the API and the gateway.
    Api,
}

impl TokenKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Join => "cvj1",
            Self::Session => "cvs1",
            Self::Api => "cva1",
        }
    }

    fn of_prefix(prefix: &str) -> Option<Self> {
        [Self::Join, Self::Session, Self::Api].into_iter().find(|kind| kind.prefix() == prefix)
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join => "join token",
            Self::Session => "session token",
            Self::Api => "API token",
        })
    }
}

/// SHA-256 of a secret of full entropy: what the store keeps and looks up.
///
/// `==` takes the same time wherever the two differ.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret's bytes.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The 32 bytes, for the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what the store kept; `None` unless it is 32 bytes.
    #[must_use]
    pub fn from_slice(stored: &[u8]) -> Option<Self> {
        stored.try_into().ok().map(Self)
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

/// The public part of a join token: 8 random bytes, 13 characters of lower-case
/// base32, so that it can be a DNS label.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 8]);

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = TokenError::Part("id");
        if text.len() != 13 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong);
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| wrong)?;
        bytes.try_into().map(Self).map_err(|_| wrong)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// `cvj1.<id>.<secret>.<pin>[.<next pin>].<checksum>`: lets one agent enrol, and
/// tells it which root key the controller must prove.
pub struct JoinToken {
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
    pin: Pin,
    next_pin: Option<Pin>,
}

impl JoinToken {
    /// A fresh token for a controller with the root `pin`; `next_pin` is the root
    /// that takes over soon, when one does.
    pub fn generate(pin: Pin, next_pin: Option<Pin>) -> Result<Self, NoRandomness> {
        Ok(Self { id: TokenId(random::bytes()?), secret: Zeroizing::new(random::bytes()?), pin, next_pin })
    }

    /// Reads a token; white space around it does not matter.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = checked_body(text, TokenKind::Join)?;
        let mut parts = body.split('.');
        let id = parts.next().ok_or(TokenError::Part("id"))?.parse()?;
        let secret = secret_part(parts.next())?;
        let pin = pin_part(parts.next().ok_or(TokenError::Part("pin"))?)?;
        let next_pin = parts.next().map(pin_part).transpose()?;
        match parts.next() {
            None => Ok(Self { id, secret, pin, next_pin }),
            Some(_) => Err(TokenError::Part("number of parts")),
        }
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The secret, for the request that redeems the token.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What the store keeps of the secret.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.secret.as_slice())
    }

    /// The roots the controller may prove: one, or two while a root is replaced.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        [Some(self.pin), self.next_pin].into_iter().flatten().collect()
    }

    /// The text, which is a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(self.secret.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str(TokenKind::Join.prefix());
        for part in [&self.id.to_string(), secret.as_str(), &self.pin.base64url()] {
            text.push('.');
            text.push_str(part);
        }
        if let Some(next) = self.next_pin {
            text.push('.');
            text.push_str(&next.base64url());
        }
        with_checksum(text)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// `cvs1.<secret>.<checksum>` or `cva1.…`: whoever holds it is let in.
pub struct BearerToken {
    kind: TokenKind,
    secret: Zeroizing<[u8; 32]>,
}

impl BearerToken {
    /// A fresh token of a person's session.
    pub fn generate_session() -> Result<Self, NoRandomness> {
        Ok(Self { kind: TokenKind::Session, secret: Zeroizing::new(random::bytes()?) })
    }

    /// A fresh token for a machine.
    pub fn generate_api() -> Result<Self, NoRandomness> {
        Ok(Self { kind: TokenKind::Api, secret: Zeroizing::new(random::bytes()?) })
    }

    /// Reads a token of either kind; white space around it does not matter.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let kind = if kind_of(text) == Some(TokenKind::Api) { TokenKind::Api } else { TokenKind::Session };
        let body = checked_body(text, kind)?;
        Ok(Self { kind, secret: secret_part(Some(body))? })
    }

    /// [`TokenKind::Session`] or [`TokenKind::Api`].
    #[must_use]
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// What the store keeps, and looks the token up by.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.secret.as_slice())
    }

    /// The text, which is a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64URL_NOPAD.encode(self.secret.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(128));
        text.push_str(self.kind.prefix());
        text.push('.');
        text.push_str(&secret);
        with_checksum(text)
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Crockford's base32: no I, L, O or U, which read as others.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// `XXXX-XXXX-XXXX`: 60 bits that a person can type, for one sign-in within
/// minutes.
pub struct SignInCode(Zeroizing<[u8; 12]>);

impl SignInCode {
    /// A fresh code.
    pub fn generate() -> Result<Self, NoRandomness> {
        let random: Zeroizing<[u8; 12]> = Zeroizing::new(random::bytes()?);
        // 256 is a multiple of 32, so every digit is equally likely.
        let digits = random.map(|byte| digit(byte & 31));
        Ok(Self(Zeroizing::new(digits)))
    }

    /// Reads a code as people type it: any case, with or without dashes and
    /// spaces, O for 0 and I or L for 1.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.trim().is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let mut digits = Zeroizing::new([0; 12]);
        let mut slots = digits.iter_mut();
        for byte in text.bytes().filter(|b| !matches!(b, b'-' | b' ' | b'\t' | b'\r' | b'\n')) {
            *slots.next().ok_or(TokenError::Code)? = typed_digit(byte).ok_or(TokenError::Code)?;
        }
        match slots.next() {
            None => Ok(Self(digits)),
            Some(_) => Err(TokenError::Code),
        }
    }

    /// What the store keeps, and looks the code up by.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_slice())
    }

    /// The text in groups of four, which is a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(14));
        for (index, digit) in self.0.iter().enumerate() {
            if index == 4 || index == 8 {
                text.push('-');
            }
            text.push(char::from(*digit));
        }
        text
    }
}

impl fmt::Debug for SignInCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInCode(redacted)")
    }
}

fn digit(value: u8) -> u8 {
    CROCKFORD.get(usize::from(value)).copied().unwrap_or(b'0')
}

fn typed_digit(byte: u8) -> Option<u8> {
    let read = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    CROCKFORD.contains(&read).then_some(read)
}

fn kind_of(text: &str) -> Option<TokenKind> {
    TokenKind::of_prefix(text.trim().split('.').next()?)
}

/// The parts between the prefix and the checksum, once both are right.
fn checked_body(text: &str, wanted: TokenKind) -> Result<&str, TokenError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    if text.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let found = kind_of(text).ok_or(TokenError::NotAToken)?;
    if found != wanted {
        return Err(TokenError::WrongKind { found, wanted });
    }
    let (signed, sum) = text.rsplit_once('.').ok_or(TokenError::Checksum)?;
    if checksum(signed) != sum {
        return Err(TokenError::Checksum);
    }
    signed.split_once('.').map(|(_, body)| body).ok_or(TokenError::Part("number of parts"))
}

/// Guards against slips of copying, not against forgery.
fn checksum(text: &str) -> String {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    BASE64URL_NOPAD.encode(&[a, b, c, d])
}

fn with_checksum(mut text: Zeroizing<String>) -> Zeroizing<String> {
    let sum = checksum(&text);
    text.push('.');
    text.push_str(&sum);
    text
}

fn secret_part(part: Option<&str>) -> Result<Zeroizing<[u8; 32]>, TokenError> {
    let wrong = TokenError::Part("secret");
    let bytes = BASE64URL_NOPAD.decode(part.ok_or(wrong)?.as_bytes()).map_err(|_| wrong)?;
    let bytes = Zeroizing::new(bytes);
    bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| wrong)
}

fn pin_part(part: &str) -> Result<Pin, TokenError> {
    // Inside a token a pin has no `sha256:` before it.
    if part.contains(':') {
        return Err(TokenError::Part("pin"));
    }
    part.parse().map_err(|_| TokenError::Part("pin"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pin(byte: u8) -> Pin {
        Pin::from([byte; 32])
    }

    #[test]
    fn a_join_token_reads_back() {
        for next in [None, Some(pin(2))] {
            let made = JoinToken::generate(pin(1), next).unwrap();
            let text = made.expose();
            let read = JoinToken::parse(&format!("  {}\n", text.as_str())).unwrap();
            assert_eq!(read.id(), made.id());
            assert_eq!(read.secret(), made.secret());
            assert_eq!(read.hash(), made.hash());
            assert_eq!(read.pins(), made.pins());
            assert_eq!(text.split('.').count(), if next.is_some() { 6 } else { 5 });
            assert_eq!(read.expose(), text);
        }
    }

    #[test]
    fn the_id_is_a_dns_label_of_thirteen() {
        let id = JoinToken::generate(pin(1), None).unwrap().id().to_string();
        assert_eq!(id.len(), 13);
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{id}");
        // The last of the 65 bits is no part of the id, so it must be zero.
        assert!("aaaaaaaaaaaab".parse::<TokenId>().is_err());
        assert!("AAAAAAAAAAAAA".parse::<TokenId>().is_err());
    }

    #[test]
    fn what_is_wrong_with_a_join_token_is_said() {
        let good = JoinToken::generate(pin(1), None).unwrap().expose();
        let session = BearerToken::generate_session().unwrap().expose();
        let wrong_kind = TokenError::WrongKind { found: TokenKind::Session, wanted: TokenKind::Join };
        let cut = good.get(..good.len() - 9).unwrap();
        let signed = |body: &str| with_checksum(Zeroizing::new(body.to_owned())).to_string();
        let parts: Vec<&str> = good.split('.').collect();
        let (id, secret, first_pin) = (parts[1], parts[2], parts[3]);
        for (text, error) in [
            (" \n".to_owned(), TokenError::Empty),
            ("x".repeat(513), TokenError::TooLong),
            ("hello.world".to_owned(), TokenError::NotAToken),
            ("cvj2.a.b.c.d".to_owned(), TokenError::NotAToken),
            (session.to_string(), wrong_kind),
            (cut.to_owned(), TokenError::Checksum),
            (good.replacen(id, &id.chars().rev().collect::<String>(), 1) + "x", TokenError::Checksum),
            ("cvj1".to_owned(), TokenError::Checksum),
            (signed("cvj1"), TokenError::Part("number of parts")),
            (signed("cvj1.short"), TokenError::Part("id")),
            (signed(&format!("cvj1.{id}")), TokenError::Part("secret")),
            (signed(&format!("cvj1.{id}.c2hvcnQ.{first_pin}")), TokenError::Part("secret")),
            (signed(&format!("cvj1.{id}.{secret}")), TokenError::Part("pin")),
            (signed(&format!("cvj1.{id}.{secret}.sha256:{first_pin}")), TokenError::Part("pin")),
            (
                signed(&format!("cvj1.{id}.{secret}.{first_pin}.{first_pin}.{first_pin}")),
                TokenError::Part("number of parts"),
            ),
        ] {
            assert_eq!(JoinToken::parse(&text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn bearer_tokens_keep_their_kind() {
        let session = BearerToken::generate_session().unwrap();
        let api = BearerToken::generate_api().unwrap();
        for (token, prefix) in [(&session, "cvs1."), (&api, "cva1.")] {
            let text = token.expose();
            assert!(text.starts_with(prefix));
            let read = BearerToken::parse(&text).unwrap();
            assert_eq!((read.kind(), read.hash()), (token.kind(), token.hash()));
        }
        assert_ne!(session.hash(), api.hash());
        // The kind is under the checksum: one does not become the other by its prefix.
        let forged = session.expose().replacen("cvs1", "cva1", 1);
        assert_eq!(BearerToken::parse(&forged).unwrap_err(), TokenError::Checksum);
        let join = JoinToken::generate(pin(1), None).unwrap().expose();
        assert!(matches!(
            BearerToken::parse(&join),
            Err(TokenError::WrongKind { found: TokenKind::Join, .. })
        ));
    }

    #[test]
    fn a_sign_in_code_is_read_as_people_type_it() {
        let code = SignInCode::parse("0123-4567-89AB").unwrap();
        assert_eq!(code.expose().as_str(), "0123-4567-89AB");
        for typed in ["o123 456789ab", "OI23-4567-89ab", "  ol23456789AB\n", "0123\t4567 - 89AB"] {
            assert_eq!(SignInCode::parse(typed).unwrap().hash(), code.hash(), "{typed}");
        }
        assert_eq!(SignInCode::parse("olZ3456789AB").unwrap().expose().as_str(), "01Z3-4567-89AB");
        for bad in ["0123-4567-89A", "0123-4567-89ABC", "0123-4567-89AU", "0123_4567_89AB", "0123-4567-89Aé"]
        {
            assert_eq!(SignInCode::parse(bad).unwrap_err(), TokenError::Code, "{bad}");
        }
        assert_eq!(SignInCode::parse(" ").unwrap_err(), TokenError::Empty);
    }

    #[test]
    fn no_secret_shows_in_debug() {
        let join = JoinToken::generate(pin(1), None).unwrap();
        assert_eq!(
            format!("{join:?}"),
            format!("JoinToken {{ id: TokenId({}), pin: Pin({}), .. }}", join.id(), pin(1))
        );
        let bearer = BearerToken::generate_api().unwrap();
        assert_eq!(format!("{bearer:?}"), "BearerToken { kind: Api, .. }");
        assert_eq!(format!("{:?}", SignInCode::generate().unwrap()), "SignInCode(redacted)");
        assert_eq!(format!("{:?}", bearer.hash()), "SecretHash(redacted)");
    }

    #[test]
    fn hashes_differ_where_secrets_differ() {
        assert_eq!(SecretHash::of(b"a"), SecretHash::of(b"a"));
        assert_ne!(SecretHash::of(b"a"), SecretHash::of(b"b"));
        assert_eq!(SecretHash::from_slice(SecretHash::of(b"a").as_bytes()), Some(SecretHash::of(b"a")));
        assert_eq!(SecretHash::from_slice(&[0; 31]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,600}") {
            let _ = JoinToken::parse(&text);
            let _ = BearerToken::parse(&text);
            let _ = SignInCode::parse(&text);
            let _ = text.parse::<TokenId>();
        }

        #[test]
        fn one_changed_character_is_noticed(at in 0_usize..150, to in "[A-Za-z0-9_-]") {
            let text = JoinToken::generate(pin(1), Some(pin(2))).unwrap().expose().to_string();
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert!(JoinToken::parse(&changed).is_err());
        }

        #[test]
        fn generated_codes_read_back(_round in 0..50) {
            let code = SignInCode::generate().unwrap();
            prop_assert_eq!(SignInCode::parse(&code.expose()).unwrap().hash(), code.hash());
        }
    }
}
