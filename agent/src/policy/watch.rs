//! Follows the policy file: a changed one takes over, a broken one is reported and the old one kept.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{MAX_FILE, Policy, PolicyError};

/// How often the file is read again. A live stream must be cut within 5 s of a
/// change, so the reading and the cutting together stay well below that.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Reads and checks the file.
///
/// # Errors
/// [`PolicyError`] when it cannot be opened or is not well-formed.
pub async fn load(path: &Path) -> Result<Policy, PolicyError> {
    Policy::parse(&read(path).await?)
}

/// Reads the file again every `period` until `stop`; sends each well-formed change.
///
/// The contents are compared, not the time of the last change: Kubernetes swaps
/// a symbolic link under a mounted ConfigMap.
pub async fn follow(
    path: PathBuf,
    policy: watch::Sender<Arc<Policy>>,
    period: Duration,
    stop: CancellationToken,
) {
    let mut last = Seen::default();
    // What was loaded at the start may be old by now; the first reading tells.
    loop {
        match read(&path).await {
            Ok(text) => last.observe(text, &policy),
            Err(error) => last.failed(&error.to_string()),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

#[derive(Default)]
struct Seen {
    text: Option<String>,
    problem: Option<String>,
}

impl Seen {
    fn observe(&mut self, text: String, policy: &watch::Sender<Arc<Policy>>) {
        if self.text.as_ref() == Some(&text) {
            return;
        }
        let first = self.text.is_none() && self.problem.is_none();
        match Policy::parse(&text) {
            Ok(parsed) => {
                if !first {
                    tracing::info!(policy = parsed.sentence(), "policy file changed and took effect");
                }
                self.problem = None;
                policy.send_replace(Arc::new(parsed));
                self.text = Some(text);
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn failed(&mut self, problem: &str) {
        if self.problem.as_deref() != Some(problem) {
            tracing::error!(problem, "new policy file is refused, the last good one stays in force");
            self.problem = Some(problem.to_owned());
        }
        // Going back to the text of before must count as a change.
        self.text = None;
    }
}

async fn read(path: &Path) -> Result<String, PolicyError> {
    use tokio::io::AsyncReadExt;
    let file = tokio::fs::File::open(path).await.map_err(PolicyError::Unreadable)?;
    let mut text = String::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).await.map_err(PolicyError::Unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(receiver: &mut watch::Receiver<Arc<Policy>>, paused: bool) {
        let waited =
            tokio::time::timeout(Duration::from_secs(10), receiver.wait_for(|p| p.paused() == paused))
                .await
                .is_ok();
        assert!(waited, "policy stayed at paused={}", receiver.borrow().paused());
    }

    #[tokio::test]
    async fn a_change_takes_over_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "pause: true\n").unwrap();
        let (sender, mut receiver) = watch::channel(Arc::new(Policy::default()));
        let stop = CancellationToken::new();
        let period = Duration::from_millis(5);
        let task = tokio::spawn(follow(path.clone(), sender, period, stop.clone()));
        until(&mut receiver, true).await;
        std::fs::write(&path, "pasue: false\n").unwrap();
        // A later good change proves that the broken one was passed over.
        receiver.mark_unchanged();
        std::fs::write(&path, "pause: false\n").unwrap();
        until(&mut receiver, false).await;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "pause: true\n").unwrap();
        until(&mut receiver, true).await;
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_broken_text_keeps_the_policy_and_the_way_back_is_seen() {
        let (sender, receiver) = watch::channel(Arc::new(Policy::default()));
        let mut seen = Seen::default();
        seen.observe("pause: true".to_owned(), &sender);
        assert!(receiver.borrow().paused());
        seen.observe("pause: maybe".to_owned(), &sender);
        assert!(receiver.borrow().paused());
        assert!(seen.problem.is_some());
        seen.observe("pause: true".to_owned(), &sender);
        assert!(seen.problem.is_none());
    }
}
