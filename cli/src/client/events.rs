//! Server-sent events: read, resumed after a cut, never silently incomplete.
//!
//! The stream carries only changes. Whoever follows it reads the state by GET
//! first, and again after [`News::Reread`]: a gap, or a reconnection that the
//! controller could not fill.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::{Ask, Client};
use crate::failure::{Exit, Failure};

/// The controller beats every 10 s; after three missed beats the line is dead.
const SILENCE: Duration = Duration::from_secs(35);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// An event is one API object; more than this is not one.
const EVENT_LIMIT: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// What a follower gets to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Event(Event),
    /// Something may have been missed: read the state again.
    Reread,
    /// The line is cut; it is being mended. Holds the cause.
    Cut(String),
}

/// A stream of events that mends itself.
pub(crate) struct Events {
    client: Client,
    cluster: Option<String>,
    line: Option<reqwest::Response>,
    parser: Parser,
    /// When the line was last heard of.
    heard: Instant,
    pause: Duration,
    /// When to open the line again.
    reopen: Instant,
    opened_once: bool,
}

impl Events {
    /// Events of all clusters, or of one by its id. Nothing is opened yet.
    pub(crate) fn of(client: Client, cluster: Option<&str>) -> Self {
        Self {
            client,
            cluster: cluster.map(str::to_owned),
            line: None,
            parser: Parser::default(),
            heard: Instant::now(),
            pause: FIRST_PAUSE,
            reopen: Instant::now(),
            opened_once: false,
        }
    }

    /// The next news. It may be dropped at any time without losing an event.
    /// Fails only when waiting cannot help: no session, no right, no such API.
    pub(crate) async fn next(&mut self) -> Result<News, Failure> {
        loop {
            if let Some(event) = self.parser.take() {
                let gap = event.name == "gap";
                return Ok(if gap { News::Reread } else { News::Event(event) });
            }
            let Some(line) = self.line.as_mut() else {
                if let Some(news) = self.open().await? {
                    return Ok(news);
                }
                continue;
            };
            let cause = match tokio::time::timeout_at(self.heard + SILENCE, line.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    self.heard = Instant::now();
                    self.pause = FIRST_PAUSE;
                    match self.parser.push(&bytes) {
                        Ok(()) => continue,
                        Err(TooLarge) => "an event was too large".to_owned(),
                    }
                }
                Ok(Ok(None)) => "the controller ended the stream".to_owned(),
                Ok(Err(error)) => super::problem::causes(&error),
                Err(_) => format!("no beat for {}s", SILENCE.as_secs()),
            };
            self.line = None;
            self.parser.cut();
            self.wait_before_opening();
            return Ok(News::Cut(cause));
        }
    }

    /// Opens the stream. News after it: `Reread` when events may be missing.
    async fn open(&mut self) -> Result<Option<News>, Failure> {
        tokio::time::sleep_until(self.reopen).await;
        let mut ask: Ask = self.client.ask(Method::GET, &["events"]);
        if let Some(cluster) = &self.cluster {
            ask = ask.query("cluster", cluster);
        }
        match self.client.open(&ask, self.parser.last_id.as_deref()).await {
            Ok(line) => {
                self.line = Some(line);
                self.heard = Instant::now();
                let resumed = self.opened_once && self.parser.last_id.is_some();
                self.opened_once = true;
                // Without an id the controller cannot know what was missed.
                Ok((!resumed).then_some(News::Reread))
            }
            Err(failure) if failure.exit == Exit::Unreachable || failure.exit == Exit::Failed => {
                let cause = failure.cause().to_owned();
                self.opened_once = true;
                self.wait_before_opening();
                Ok(Some(News::Cut(cause)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn wait_before_opening(&mut self) {
        self.reopen = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

/// The line format of server-sent events.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
    last_id: Option<String>,
    ready: std::collections::VecDeque<Event>,
}

#[derive(Debug, PartialEq, Eq)]
struct TooLarge;

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\n', '\r']));
        }
        if self.buffer.len() + self.data.len() > EVENT_LIMIT { Err(TooLarge) } else { Ok(()) }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment is a beat; unknown fields are to be ignored.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        if data.pop().is_some() || !name.is_empty() {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Event { name, data });
        }
    }

    fn take(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// What came of an event before a cut is not an event.
    fn cut(&mut self) {
        self.buffer.clear();
        self.name.clear();
        self.data.clear();
        self.id = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = ": beat\n\nid: 7\nevent: cluster\ndata: {\"a\":\ndata: 1}\n\n:beat\r\nid:8\r\ndata:x\r\n\r\nevent: gap\n\n";

    fn all(parser: &mut Parser) -> Vec<Event> {
        std::iter::from_fn(|| parser.take()).collect()
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut parser = Parser::default();
            for pair in cuts.windows(2) {
                parser.push(&STREAM.as_bytes()[pair[0]..pair[1]]).unwrap();
            }
            let expected = [event("cluster", "{\"a\":\n1}"), event("message", "x"), event("gap", "")];
            prop_assert_eq!(all(&mut parser), expected);
            prop_assert_eq!(parser.last_id.as_deref(), Some("8"));
        }

        #[test]
        fn any_bytes_are_bounded(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut parser = Parser::default();
            let _ = parser.push(&bytes);
            all(&mut parser);
        }
    }

    #[test]
    fn an_id_counts_only_with_its_whole_event() {
        let mut parser = Parser::default();
        parser.push(b"id: 1\ndata: a\n\nid: 2\ndata: b\n").unwrap();
        parser.cut();
        parser.push(b"\n").unwrap();
        assert_eq!(all(&mut parser), [event("message", "a")]);
        assert_eq!(parser.last_id.as_deref(), Some("1"));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; EVENT_LIMIT + 1]), Err(TooLarge));
    }
}
