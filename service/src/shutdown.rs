//! The end of the process: Ctrl-C or SIGTERM asks for it, another Ctrl-C forces it.

use std::io;
use std::process;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that Ctrl-C ended.
const FORCED: i32 = 130;

/// A token that the first Ctrl-C or SIGTERM from now on cancels. A Ctrl-C after that ends the process at once; another
/// SIGTERM doesn't, since some supervisors send it twice.
pub fn on_signal() -> io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
            stop.cancel();
            interrupt.recv().await;
            process::exit(FORCED);
        }
    });
    Ok(stop)
}
