//! Every number that bounds the tunnel, in one place.

use std::time::Duration;

/// Bounds and periods of one end of the tunnel. `Default` is what the design
/// prescribes; tests make them smaller.
#[derive(Debug, Clone)]
pub struct Limits {
    /// HTTP/2 window of the whole connection, bytes. The largest there is, so
    /// that an unread stream never stops another.
    pub connection_window: u32,
    /// HTTP/2 window of one stream, bytes: what one unread call can hold here.
    pub stream_window: u32,
    /// Largest HTTP/2 frame taken, bytes.
    pub max_frame: u32,
    /// Calls one agent may have open at once.
    pub max_calls: u32,
    /// Streams beside the calls: `Control`, enrolment and late answers.
    pub spare_streams: u32,
    /// Bytes of a request's body that ride in `Open`.
    pub open_body: usize,
    /// Bytes of ready body chunks that a sender puts into one frame.
    pub merge: usize,
    /// Bytes that h2 may hold for a stream the socket does not take yet.
    pub send_buffer: usize,
    /// Largest head of a request or an answer, bytes.
    pub max_head: usize,
    /// Bytes of bookkeeping for small frames that h2 may hold for a connection,
    /// 256 less the payload for each frame below that. Merging unread frames keeps
    /// it far below; only an end that floods reaches it.
    pub frame_overhead: usize,
    /// Streams of a connection that may break HTTP/2's rules in its life.
    pub max_stream_errors: usize,
    /// Answers of an agent beyond the calls that it was given before its connection
    /// is ended.
    pub stray_answers: u64,
    /// Messages on `Control` that no call explains, a second over ten seconds.
    pub messages_per_second: u32,
    /// Facts an agent may tell, a second over ten seconds.
    pub facts_per_second: u32,
    /// Messages that wait for `Control`; the next call fails with `Busy`.
    pub control_queue: usize,
    /// Bytes that wait for `Control`.
    pub control_queue_bytes: usize,
    /// Bytes unread of all calls of one connection before the reaper looks.
    pub connection_budget: u64,
    /// Bytes unread of all calls of this process before the reaper looks.
    pub process_budget: u64,
    /// How often budgets are looked at while any long call is open.
    pub reaper_tick: Duration,
    /// The agent sends a heartbeat this often.
    pub heartbeat: Duration,
    /// An HTTP/2 PING is sent after this long without a byte received.
    pub ping_idle: Duration,
    /// The connection is given up when a PING is unanswered this long.
    pub ping_timeout: Duration,
    /// HTTP/2 preface, `Hello` and `Welcome` must come within this.
    pub handshake: Duration,
    /// A connection without `Control` and without a stream ends after this.
    pub idle: Duration,
    /// Calls get this long to end after a drain began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_window: (1 << 31) - 1,
            stream_window: 1 << 20,
            max_frame: 64 << 10,
            max_calls: 4096,
            spare_streams: 64,
            open_body: 32 << 10,
            merge: 32 << 10,
            send_buffer: 256 << 10,
            max_head: 256 << 10,
            frame_overhead: 128 << 20,
            max_stream_errors: 1 << 16,
            stray_answers: 1024,
            messages_per_second: 100,
            facts_per_second: 1,
            control_queue: 1024,
            control_queue_bytes: 4 << 20,
            connection_budget: 64 << 20,
            process_budget: 1 << 30,
            reaper_tick: Duration::from_secs(1),
            heartbeat: Duration::from_secs(20),
            ping_idle: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Streams a peer may have open at once.
    pub(crate) fn max_streams(&self) -> u32 {
        self.max_calls.saturating_add(self.spare_streams)
    }

    /// HTTP/2 header lists are our own fixed ones and enrolment's: small.
    pub(crate) fn max_header_list(&self) -> u32 {
        64 << 10
    }

    /// Silence after which either end gives the connection up: two and a half periods.
    pub(crate) fn silence(&self) -> Duration {
        self.heartbeat * 5 / 2
    }

    /// Age of a heartbeat up to which an agent counts as connected: two periods.
    pub(crate) fn fresh(&self) -> Duration {
        self.heartbeat * 2
    }
}
