//! The wire of a replica that wants the snapshot and nothing after it.
//!
//! ```text
//! AUTH user password · REPLCONF capa eof · REPLCONF rdb-only 1 · TIME · SYNC
//! $EOF:<40 random characters>\r\n  snapshot  <the same 40 characters>
//! ```
//!
//! The engine does not know the length beforehand: a child of it writes the snapshot while the parent goes on. So its
//! end is a mark that cannot be guessed. What ends without the mark is not a snapshot.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use zeroize::Zeroizing;

/// Characters of the mark.
const MARK: usize = 40;
/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;
/// Bytes of a line at most.
const LINE: u64 = 4096;
/// Silence after which the engine is taken for gone. While it prepares, it says something every 10 seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The connection.
    #[error("the connection to the engine broke: {0}")]
    Broken(#[from] std::io::Error),
    /// It says nothing any more.
    #[error("the engine has said nothing for {} s", SILENCE.as_secs())]
    Silent,
    /// It refuses.
    #[error("the engine refuses {what}: {said}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// The snapshot has no end.
    #[error("the snapshot ended before its end")]
    Short,
}

/// A connection to an engine, with a login.
pub(crate) struct Wire<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Logs in.
    pub(crate) async fn log_in(stream: S, user: &str, password: &SecretString) -> Result<Self, WireError> {
        let mut wire = Self { stream: BufReader::with_capacity(BLOCK, stream) };
        wire.ask("the login", &["AUTH", user, password.expose_secret()]).await?;
        Ok(wire)
    }

    /// Asks, and returns the text of the answer. `what` says it in an error; what is asked may hold a secret.
    pub(crate) async fn ask(&mut self, what: &'static str, words: &[&str]) -> Result<String, WireError> {
        self.say(words).await?;
        let line = self.line().await?;
        let refused = |said: &str| WireError::Refused { what, said: said.to_owned() };
        match line.split_at_checked(1) {
            Some(("-", said)) => Err(refused(said)),
            Some(("+" | ":", said)) => Ok(said.to_owned()),
            Some(("$", length)) => self.bulk(length).await?.ok_or_else(|| refused(&line)),
            // Two words: seconds and microseconds of TIME. The first is enough for anybody.
            Some(("*", "2")) => {
                let (first, second) = (self.line().await?, self.line().await?);
                let _: (String, String) = (self.line().await?, self.line().await?);
                if first.starts_with('$') { Ok(second) } else { Err(refused(&first)) }
            }
            _ => Err(refused(&line)),
        }
    }

    async fn bulk(&mut self, length: &str) -> Result<Option<String>, WireError> {
        let Some(length) = length.parse::<u64>().ok().filter(|length| *length <= 1 << 20) else {
            return Ok(None);
        };
        let mut text = Vec::new();
        within((&mut self.stream).take(length + 2).read_to_end(&mut text)).await?;
        text.truncate(usize::try_from(length).unwrap_or(0));
        Ok(String::from_utf8(text).ok())
    }

    async fn say(&mut self, words: &[&str]) -> Result<(), WireError> {
        let mut text = Zeroizing::new(format!("*{}\r\n", words.len()).into_bytes());
        for word in words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        within(async {
            self.stream.write_all(&text).await?;
            self.stream.flush().await
        })
        .await
    }

    /// The next line that is not empty: the engine sends empty ones while it prepares.
    async fn line(&mut self) -> Result<String, WireError> {
        loop {
            let mut line = String::new();
            let read = within((&mut self.stream).take(LINE).read_line(&mut line)).await?;
            if read == 0 {
                return Err(WireError::Short);
            }
            let line = line.trim_end();
            if !line.is_empty() {
                return Ok(line.to_owned());
            }
        }
    }

    /// Asks for the snapshot; returns when it begins.
    pub(crate) async fn begin(&mut self) -> Result<[u8; MARK], WireError> {
        self.ask("a stream without a length", &["REPLCONF", "capa", "eof"]).await?;
        self.ask("a snapshot alone", &["REPLCONF", "rdb-only", "1"]).await?;
        self.say(&["SYNC"]).await?;
        let line = self.line().await?;
        let mark = line.strip_prefix("$EOF:").and_then(|mark| mark.as_bytes().try_into().ok());
        mark.ok_or(WireError::Refused { what: "a snapshot", said: line })
    }

    /// Writes the snapshot into `out`, up to its mark.
    pub(crate) async fn copy<W>(&mut self, mark: &[u8; MARK], out: &mut W) -> Result<(), WireError>
    where
        W: AsyncWrite + Unpin,
    {
        let mut held: Vec<u8> = Vec::with_capacity(BLOCK + MARK);
        loop {
            let read = within((&mut self.stream).take(BLOCK as u64).read_buf(&mut held)).await?;
            if read == 0 {
                return Err(WireError::Short);
            }
            let ended = held.ends_with(mark);
            let sure = held.len().saturating_sub(MARK);
            // Not within a limit: a slow target may take its time, and the engine waits for us.
            out.write_all(held.get(..sure).unwrap_or_default()).await?;
            held.drain(..sure);
            if ended {
                return Ok(());
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, WireError> {
    Ok(tokio::time::timeout(SILENCE, work).await.map_err(|_| WireError::Silent)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::DuplexStream;

    const TEST_MARK: [u8; MARK] = *b"0123456789abcdef0123456789abcdef01234567";

    /// The whole conversation, with a server that says `answer` in pieces of `piece` bytes.
    async fn fetch(answer: Vec<u8>, piece: usize) -> Result<Vec<u8>, WireError> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let speak = async move {
            for piece in answer.chunks(piece) {
                // The other side may have heard enough.
                let _ = writer.write_all(piece).await;
            }
            let _ = writer.shutdown().await;
            let _ = reader.read_to_end(&mut Vec::new()).await;
        };
        let (found, ()) = tokio::join!(listen(ours), speak);
        found
    }

    async fn listen(stream: DuplexStream) -> Result<Vec<u8>, WireError> {
        let mut wire = Wire::log_in(stream, "u", &"secret".to_owned().into()).await?;
        let mark = wire.begin().await?;
        let mut out = Vec::new();
        wire.copy(&mark, &mut out).await?;
        Ok(out)
    }

    fn answer(body: &[u8], end: &[u8]) -> Vec<u8> {
        let head: &[u8] = b"+OK\r\n+OK\r\n+OK\r\n\n\n$EOF:0123456789abcdef0123456789abcdef01234567\r\n";
        [head, body, end].concat()
    }

    #[tokio::test]
    async fn a_refused_login_says_so_without_the_password() {
        let error = fetch(b"-WRONGPASS invalid username-password pair\r\n".to_vec(), 64).await.unwrap_err();
        assert!(error.to_string().contains("WRONGPASS") && !error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn what_ends_without_its_mark_is_no_snapshot() {
        let body = vec![7; 100_000];
        for end in [&TEST_MARK[..0], &TEST_MARK[..MARK - 1]] {
            let error = fetch(answer(&body, end), 1000).await.unwrap_err();
            assert!(matches!(error, WireError::Short), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_with_a_length_is_not_taken_for_one_with_a_mark() {
        let error = fetch(b"+OK\r\n+OK\r\n+OK\r\n$100\r\n".to_vec(), 64).await.unwrap_err();
        assert!(matches!(error, WireError::Refused { what: "a snapshot", .. }), "{error}");
    }

    #[tokio::test]
    async fn the_time_is_read_from_an_answer_of_two() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"+OK\r\n*2\r\n$10\r\n1795576683\r\n$6\r\n123456\r\n$4\r\nabcd\r\n").await.unwrap();
        let mut wire = Wire::log_in(ours, "u", &"p".to_owned().into()).await.unwrap();
        assert_eq!(wire.ask("the time", &["TIME"]).await.unwrap(), "1795576683");
        assert_eq!(wire.ask("the state", &["INFO"]).await.unwrap(), "abcd");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_snapshot_comes_through_whatever_the_pieces(
            body in prop::collection::vec(any::<u8>(), 0..5000),
            piece in 1_usize..300,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let found = runtime.block_on(fetch(answer(&body, &TEST_MARK), piece)).unwrap();
            prop_assert_eq!(found, body);
        }
    }
}
