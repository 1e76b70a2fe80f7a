//! HTTP/2 PING while a connection is idle: rules as pure state, and its wire.

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

/// What to do about a connection that may be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait(Instant),
    Ping,
    Dead,
}

/// The PINGs of one connection.
pub(crate) struct KeepAlive {
    ping_pong: Option<PingPong>,
    idle: Duration,
    timeout: Duration,
    sent: Option<Instant>,
    rtt: Option<Duration>,
}

/// The connection does not answer.
#[derive(Debug)]
pub(crate) struct Dead;

impl KeepAlive {
    pub(crate) fn new(ping_pong: Option<PingPong>, idle: Duration, timeout: Duration) -> Self {
        Self { ping_pong, idle, timeout, sent: None, rtt: None }
    }

    /// Takes an answer, if one is there.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        if let (Some(sent), Some(ping_pong)) = (self.sent, self.ping_pong.as_mut())
            && let Poll::Ready(Ok(_)) = ping_pong.poll_pong(cx)
        {
            self.rtt = Some(sent.elapsed());
            self.sent = None;
        }
    }

    /// Acts on the time; says when to be asked again.
    pub(crate) fn check(&mut self, now: Instant, last_read: Instant) -> Result<Instant, Dead> {
        match verdict(now, last_read, self.sent, self.idle, self.timeout) {
            Verdict::Wait(until) => Ok(until),
            Verdict::Dead => Err(Dead),
            Verdict::Ping => {
                if let Some(ping_pong) = self.ping_pong.as_mut()
                    && ping_pong.send_ping(Ping::opaque()).is_ok()
                {
                    self.sent = Some(now);
                }
                Ok(now + self.timeout)
            }
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

fn verdict(
    now: Instant,
    last_read: Instant,
    sent: Option<Instant>,
    idle: Duration,
    timeout: Duration,
) -> Verdict {
    match sent {
        // Any byte proves life as well as the answer does.
        Some(sent) if last_read > sent => Verdict::Wait(last_read.max(now) + idle.min(timeout)),
        Some(sent) if now >= sent + timeout => Verdict::Dead,
        Some(sent) => Verdict::Wait(sent + timeout),
        None if now >= last_read + idle => Verdict::Ping,
        None => Verdict::Wait(last_read + idle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_7_a_ping_goes_out_when_idle_and_silence_after_it_is_death() {
        let (idle, timeout) = (Duration::from_secs(10), Duration::from_secs(5));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(verdict(at(3), begin, None, idle, timeout), Verdict::Wait(at(10)));
        assert_eq!(verdict(at(10), begin, None, idle, timeout), Verdict::Ping);
        assert_eq!(verdict(at(12), begin, Some(at(10)), idle, timeout), Verdict::Wait(at(15)));
        assert_eq!(verdict(at(15), begin, Some(at(10)), idle, timeout), Verdict::Dead);
        assert_eq!(verdict(at(15), at(11), Some(at(10)), idle, timeout), Verdict::Wait(at(20)));
    }
}
