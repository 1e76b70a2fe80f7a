//! Why a backup target did not do what was asked, in words for whoever can mend it.

use std::error::Error;
use std::fmt;
use std::io;

use culvert_resources::{Failure, WhoCanFix, Why};

use super::http::MAX_SKEW_MS;

/// Stable codes of what can be wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The configuration cannot be carried out: a bad endpoint, proxy or certificate.
    Configuration,
    /// The mounted Secret lacks a key, or what it holds cannot be read.
    CredentialsMissing,
    /// The store does not know the credentials.
    CredentialsInvalid,
    /// The credentials were good once.
    CredentialsExpired,
    /// The credentials are good, but not for this.
    AccessDenied,
    /// There is no such bucket, container or folder.
    BucketMissing,
    /// The bucket is in another region.
    WrongRegion,
    /// The clocks of the store and of this node differ by more than the store bears.
    ClockSkew,
    /// The endpoint's name has no address.
    NameUnknown,
    /// Nobody answers at the endpoint.
    Unreachable,
    /// The endpoint stopped answering.
    Timeout,
    /// The endpoint's certificate is not trusted.
    TlsUntrusted,
    /// The proxy does not let us through.
    ProxyRefused,
    /// The share or the quota is full.
    NoSpace,
    /// The store asks for patience.
    Busy,
    /// There is no such object.
    NotFound,
    /// An object with this name, and other content, lies there.
    Exists,
    /// The store answers in a way that is not understood.
    Unexpected,
}

impl FaultCode {
    /// The word in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().word
    }

    /// The step of a check that such a fault belongs to, when it is not the one that was under way.
    #[must_use]
    pub fn step(self) -> Option<&'static str> {
        match self {
            Self::NameUnknown
            | Self::Unreachable
            | Self::Timeout
            | Self::TlsUntrusted
            | Self::ProxyRefused => Some("connect"),
            Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::CredentialsExpired
            | Self::ClockSkew => Some("authenticate"),
            _ => None,
        }
    }

    /// Whether it may well be gone in a minute, with nobody doing anything.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::NameUnknown | Self::Unreachable | Self::Timeout | Self::Busy | Self::Unexpected)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.code == self).unwrap_or(&UNEXPECTED)
    }
}

/// What is known of a fault.
struct Row {
    code: FaultCode,
    word: &'static str,
    who: WhoCanFix,
    cause: &'static str,
    next: &'static str,
}

const fn row(
    code: FaultCode,
    word: &'static str,
    who: WhoCanFix,
    cause: &'static str,
    next: &'static str,
) -> Row {
    Row { code, word, who, cause, next }
}

const UNEXPECTED: Row = row(
    FaultCode::Unexpected,
    "target_unexpected",
    WhoCanFix::StorageOwner,
    "the store gave an answer that is not understood",
    "read the message; it is tried again",
);

const ROWS: &[Row] = &[
    row(
        FaultCode::Busy,
        "target_busy",
        WhoCanFix::Nobody,
        "the store asks to come later",
        "nothing: it is tried again",
    ),
    row(
        FaultCode::Configuration,
        "target_configuration",
        WhoCanFix::Developer,
        "the target's settings cannot be used",
        "correct the settings of the backup target",
    ),
    row(
        FaultCode::CredentialsMissing,
        "credentials_missing",
        WhoCanFix::Developer,
        "the target's Secret holds no usable credentials",
        "put the credentials into the Secret that the target names",
    ),
    row(
        FaultCode::CredentialsInvalid,
        "credentials_invalid",
        WhoCanFix::StorageOwner,
        "the store does not know the credentials",
        "check access key and secret, and rotate the target's credentials",
    ),
    row(
        FaultCode::CredentialsExpired,
        "credentials_expired",
        WhoCanFix::StorageOwner,
        "the credentials have expired",
        "issue new credentials and rotate the target's",
    ),
    row(
        FaultCode::AccessDenied,
        "access_denied",
        WhoCanFix::StorageOwner,
        "the credentials do not allow this",
        "allow write, read, list and delete on the bucket and prefix",
    ),
    row(
        FaultCode::BucketMissing,
        "bucket_missing",
        WhoCanFix::StorageOwner,
        "the bucket does not exist",
        "create the bucket, or correct its name in the target",
    ),
    row(
        FaultCode::WrongRegion,
        "wrong_region",
        WhoCanFix::Developer,
        "the bucket is in another region",
        "set the region of the target to that of the bucket",
    ),
    row(
        FaultCode::ClockSkew,
        "clock_skew",
        WhoCanFix::PlatformOperator,
        "the clock of this node and that of the store differ too much",
        "set the clocks of the nodes, for instance with chrony",
    ),
    row(
        FaultCode::NameUnknown,
        "name_unknown",
        WhoCanFix::PlatformOperator,
        "the name of the endpoint has no address",
        "check the endpoint's name and the cluster's DNS",
    ),
    row(
        FaultCode::Unreachable,
        "target_unreachable",
        WhoCanFix::PlatformOperator,
        "nobody answers at the endpoint",
        "check that the endpoint runs and that the network lets its traffic out",
    ),
    row(
        FaultCode::Timeout,
        "target_timeout",
        WhoCanFix::PlatformOperator,
        "the endpoint stopped answering",
        "check the network between the cluster and the endpoint",
    ),
    row(
        FaultCode::TlsUntrusted,
        "tls_untrusted",
        WhoCanFix::Developer,
        "the certificate of the endpoint is not trusted",
        "give the issuer's certificate in the target's caBundle",
    ),
    row(
        FaultCode::ProxyRefused,
        "proxy_refused",
        WhoCanFix::PlatformOperator,
        "the proxy does not let the traffic through",
        "allow the endpoint on the proxy, or correct the target's proxy",
    ),
    row(
        FaultCode::NoSpace,
        "no_space",
        WhoCanFix::StorageOwner,
        "there is no space left in the target",
        "make room or raise the quota; retention deletes what is old",
    ),
    row(
        FaultCode::NotFound,
        "object_missing",
        WhoCanFix::StorageOwner,
        "an object that should lie in the target does not",
        "look whether somebody or a life-cycle rule of the bucket deleted it",
    ),
    row(
        FaultCode::Exists,
        "object_exists",
        WhoCanFix::Developer,
        "an object of the same name with other content lies in the target",
        "give each data service a target or prefix of its own",
    ),
];

/// What went wrong with a target. The detail never holds a credential.
#[derive(Debug)]
pub struct Fault {
    /// What kind of fault.
    pub code: FaultCode,
    target: String,
    detail: String,
}

impl Fault {
    /// A fault of a target, which is named as a person knows it.
    #[must_use]
    pub fn new(code: FaultCode, target: &str, detail: impl Into<String>) -> Self {
        Self { code, target: target.to_owned(), detail: detail.into() }
    }

    /// What the store, or the way to it, said. `skew_ms` is how far the store's clock was seen ahead of ours.
    #[must_use]
    pub fn from_store(error: &object_store::Error, target: &str, skew_ms: Option<i64>) -> Self {
        let detail = detail(error);
        let code = classify(error, &detail, skew_ms);
        let detail = match (code, skew_ms) {
            (FaultCode::ClockSkew, Some(skew)) => format!("they differ by {} s", skew.abs() / 1000),
            _ => detail,
        };
        Self::new(code, target, detail)
    }

    /// For a status: the cause, who can mend it, what to do.
    #[must_use]
    pub fn why(&self) -> Why {
        let row = self.code.row();
        Why {
            code: row.word.to_owned(),
            message: self.to_string(),
            who: row.who,
            next: row.next.to_owned(),
            object: None,
        }
    }

    /// For the status of a Backup or Restore.
    #[must_use]
    pub fn failure(&self, step: &str) -> Failure {
        let row = self.code.row();
        Failure {
            step: step.to_owned(),
            code: row.word.to_owned(),
            message: self.to_string(),
            hint: row.next.to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.code.row().cause)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl Error for Fault {}

/// Words in what a store answers, and what they mean. The first that is found counts.
const ANSWERS: &[(&str, FaultCode)] = &[
    ("RequestTimeTooSkewed", FaultCode::ClockSkew),
    ("ExpiredToken", FaultCode::CredentialsExpired),
    ("TokenRefreshRequired", FaultCode::CredentialsExpired),
    ("token has expired", FaultCode::CredentialsExpired),
    ("Signature not valid in the specified time frame", FaultCode::CredentialsExpired),
    ("InvalidAccessKeyId", FaultCode::CredentialsInvalid),
    ("SignatureDoesNotMatch", FaultCode::CredentialsInvalid),
    ("InvalidToken", FaultCode::CredentialsInvalid),
    ("AuthenticationFailed", FaultCode::CredentialsInvalid),
    ("invalid_grant", FaultCode::CredentialsInvalid),
    ("AuthorizationHeaderMalformed", FaultCode::WrongRegion),
    ("PermanentRedirect", FaultCode::WrongRegion),
    ("incorrectly configured region", FaultCode::WrongRegion),
    ("NoSuchBucket", FaultCode::BucketMissing),
    ("ContainerNotFound", FaultCode::BucketMissing),
    ("bucket does not exist", FaultCode::BucketMissing),
    ("StorageFull", FaultCode::NoSpace),
    ("QuotaExceeded", FaultCode::NoSpace),
    ("507 Insufficient Storage", FaultCode::NoSpace),
    ("SlowDown", FaultCode::Busy),
    ("ServerBusy", FaultCode::Busy),
    ("503 Service Unavailable", FaultCode::Busy),
    ("429 Too Many Requests", FaultCode::Busy),
    ("AccessDenied", FaultCode::AccessDenied),
    ("AuthorizationFailure", FaultCode::AccessDenied),
    ("AuthorizationPermissionMismatch", FaultCode::AccessDenied),
    ("unsuccessful tunnel", FaultCode::ProxyRefused),
    ("tunnel error", FaultCode::ProxyRefused),
    ("proxy authentication required", FaultCode::ProxyRefused),
    ("dns error", FaultCode::NameUnknown),
    ("failed to lookup address", FaultCode::NameUnknown),
    ("invalid peer certificate", FaultCode::TlsUntrusted),
    ("UnknownIssuer", FaultCode::TlsUntrusted),
    ("not yet implemented", FaultCode::Configuration),
];

fn classify(error: &object_store::Error, detail: &str, skew_ms: Option<i64>) -> FaultCode {
    if let Some(code) = io_code(error) {
        return code;
    }
    let by_answer = ANSWERS.iter().find(|(word, _)| detail.contains(word)).map(|(_, code)| *code);
    let code = by_answer.unwrap_or_else(|| by_kind(error, detail));
    let skewed = skew_ms.is_some_and(|skew| skew.abs() > MAX_SKEW_MS);
    let refused = matches!(
        code,
        FaultCode::CredentialsInvalid | FaultCode::AccessDenied | FaultCode::CredentialsExpired
    );
    if skewed && refused { FaultCode::ClockSkew } else { code }
}

fn by_kind(error: &object_store::Error, detail: &str) -> FaultCode {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => FaultCode::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => FaultCode::Exists,
        E::PermissionDenied { .. } => FaultCode::AccessDenied,
        E::Unauthenticated { .. } => FaultCode::CredentialsInvalid,
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => FaultCode::Configuration,
        _ if detail.contains("timed out") => FaultCode::Timeout,
        _ if detail.contains("error sending request") || detail.contains("client error (Connect)") => {
            FaultCode::Unreachable
        }
        _ => FaultCode::Unexpected,
    }
}

/// What the operating system said, when it was that.
fn io_code(error: &(dyn Error + 'static)) -> Option<FaultCode> {
    let io = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last()?;
    match io.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FaultCode::NoSpace),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(FaultCode::AccessDenied),
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => Some(FaultCode::Unreachable),
        io::ErrorKind::TimedOut | io::ErrorKind::StaleNetworkFileHandle => Some(FaultCode::Timeout),
        _ => None,
    }
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The causes in one line, each once, cut to what fits into a status.
fn detail(error: &object_store::Error) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let words = cause.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
    }
    shorten(&text.replace(['\n', '\r'], " "))
}

const LONGEST_DETAIL: usize = 600;

fn shorten(text: &str) -> String {
    if text.chars().count() <= LONGEST_DETAIL {
        return text.to_owned();
    }
    text.chars().take(LONGEST_DETAIL).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn words_of_codes_are_told_apart() {
        let words: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.word).collect();
        assert_eq!((words.len(), ROWS.len()), (17, 17));
        assert!(!words.contains(UNEXPECTED.word));
    }

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[rstest]
    #[case("<Code>RequestTimeTooSkewed</Code>", FaultCode::ClockSkew)]
    #[case(
        "<Code>ExpiredToken</Code><Message>The provided token has expired.</Message>",
        FaultCode::CredentialsExpired
    )]
    #[case("<Code>InvalidAccessKeyId</Code>", FaultCode::CredentialsInvalid)]
    #[case("<Code>NoSuchBucket</Code>", FaultCode::BucketMissing)]
    #[case("error sending request: client error (Connect): dns error", FaultCode::NameUnknown)]
    #[case("client error (Connect): invalid peer certificate: UnknownIssuer", FaultCode::TlsUntrusted)]
    #[case("client error (Connect): tunnel error: unsuccessful", FaultCode::ProxyRefused)]
    #[case("<Code>XMinioStorageFull</Code>", FaultCode::NoSpace)]
    #[case("operation timed out", FaultCode::Timeout)]
    #[case("something nobody has seen", FaultCode::Unexpected)]
    fn answers_are_known(#[case] answer: &str, #[case] code: FaultCode) {
        assert_eq!(Fault::from_store(&generic(answer), "target nightly", None).code, code);
    }

    #[test]
    fn a_refusal_while_the_clocks_differ_is_blamed_on_the_clocks() {
        let error = generic("<Code>SignatureDoesNotMatch</Code>");
        let fault = Fault::from_store(&error, "target nightly", Some(-601_000));
        assert_eq!(fault.code, FaultCode::ClockSkew);
        assert!(fault.to_string().ends_with("(they differ by 601 s)"), "{fault}");
        assert_eq!(
            Fault::from_store(&error, "target nightly", Some(9_000)).code,
            FaultCode::CredentialsInvalid
        );
    }

    #[test]
    fn what_the_operating_system_says_counts_first() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, FaultCode::NoSpace),
            (io::ErrorKind::ConnectionRefused, FaultCode::Unreachable),
        ] {
            let error =
                object_store::Error::Generic { store: "share", source: Box::new(io::Error::from(kind)) };
            assert_eq!(Fault::from_store(&error, "target nightly", None).code, code);
        }
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let fault = Fault::from_store(&generic(&"x".repeat(100_000)), "target nightly", None);
        assert!(fault.to_string().chars().count() < 1_000);
    }
}
