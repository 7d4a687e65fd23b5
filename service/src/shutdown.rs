//! The end of the process: waits for Ctrl-C or SIGTERM.

/// Returns when the process is asked to stop (Ctrl-C or SIGTERM).
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM can't be listened for");
            let _ = interrupt.await;
        }
    }
}
