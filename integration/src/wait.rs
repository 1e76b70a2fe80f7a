//! Bounded waiting that reports the last state seen.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks; short beside anything that is waited for here.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` succeeds, for at most `limit`.
///
/// `look` returns what it saw as its error. When the time is over, the error of
/// this function carries the last one, so a failed test says what was there
/// instead. A look that hangs is cut off at the limit.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// let mut count = 0;
/// let third = culvert_integration::wait::until(Duration::from_secs(5), || {
///     count += 1;
///     let seen = count;
///     async move { anyhow::ensure!(seen >= 3, "only {seen} so far"); Ok(seen) }
/// }).await?;
/// assert_eq!(third, 3);
/// # anyhow::Ok(()) }).unwrap();
/// ```
pub async fn until<T, F, Fut>(limit: Duration, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + limit;
    let mut last = None;
    let mut cut_off = false;
    loop {
        let began = Instant::now();
        match timeout_at(end, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => last = Some(state),
            Err(_) => cut_off = end.saturating_duration_since(began) > PAUSE,
        }
        // A look that comes back at once is never cut off, so the clock is read as well.
        if Instant::now() >= end {
            let state = last.unwrap_or_else(|| anyhow!("the first look did not come back"));
            let hung = if cut_off { ", before a look that did not come back" } else { "" };
            return Err(state)
                .with_context(|| format!("waited {limit:?} in vain; the last state seen{hung}"));
        }
        sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_and_tells_what_it_saw() {
        let limit = Duration::from_millis(120);
        let at_once = until(limit, || async { Err::<(), _>(anyhow!("still red")) }).await.unwrap_err();
        assert!(format!("{at_once:#}").contains("still red"), "{at_once:#}");
        let mut looks = 0;
        let then_never = until(limit, || {
            looks += 1;
            async move { if looks > 1 { std::future::pending().await } else { Err::<(), _>(anyhow!("red")) } }
        });
        let told = format!("{:#}", then_never.await.unwrap_err());
        assert!(told.contains("red") && told.contains("did not come back"), "{told}");
        let never = until(limit, std::future::pending::<anyhow::Result<()>>).await.unwrap_err();
        assert!(format!("{never:#}").contains("did not come back"), "{never:#}");
    }
}
