//! Waiting for something to become true, with a deadline; no test sleeps and hopes.

use std::time::{Duration, Instant};

/// Long enough for a busy machine; only failures take as long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics, saying `what` was waited for, after `LIMIT`.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, ask).await
}

/// As `until`, with a limit of one's own.
pub async fn until_within<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
