//! What other instances tell: one connection that listens, for this instance's watchers and its dispatcher.
//!
//! ```text
//! claim, settle, cancel, redrive ─▶ NOTIFY deliveries ─▶ Listener ─▶ one broadcast ─▶ each watcher's stream
//! ingest, redrive, resume        ─▶ NOTIFY queued     ─▶ Listener ─▶ the dispatcher
//! ```
//! Nothing depends on it but speed: whoever is not told of what was queued polls, and a watcher that may have missed
//! something is sent away.

use std::{pin::pin, sync::Arc, time::Duration};

use diesel::pg::PgNotification;
use diesel_async::AsyncPgConnection;
use futures_util::StreamExt;
use service::{
    database::{self, DatabaseConfig},
    error::Failure,
    interruption::Interruption,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::store::{
    clock,
    feed::{self, Change},
};

/// Watchers at once on one instance.
const WATCHERS_MAX: usize = 64;
/// Changes that a watcher may lie behind.
const BEHIND_MAX: usize = 16 * 1024;
/// How often the connection is checked, and given its rest when nobody watches any more.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the database may take to answer on it; longer than it waits for locks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The wait before the connection is made again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

type Changes = broadcast::Receiver<Arc<Change>>;

/// Where watchers ask for changes.
#[derive(Clone)]
pub(crate) struct Feed {
    asks: mpsc::Sender<oneshot::Sender<Changes>>,
    places: Arc<Semaphore>,
}

/// A watcher's place, and all changes from the moment that it got it.
pub(crate) struct Watch {
    changes: Changes,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// All changes from now on.
    pub(crate) async fn watch(&self) -> Result<Watch, Failure> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{WATCHERS_MAX} watchers are served already");
            Failure::new(Code::ResourceExhausted, "TOO_MANY_STREAMS", message)
        })?;
        let (asked, answer) = oneshot::channel();
        self.asks.send(asked).await.map_err(|_| interrupted())?;
        let changes = answer.await.map_err(|_| interrupted())?;
        Ok(Watch { changes, _place: place })
    }
}

impl Watch {
    /// The next change, or why there can't be one without a gap.
    pub(crate) async fn next(&mut self) -> Result<Arc<Change>, Failure> {
        self.changes.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Closed => interrupted(),
            broadcast::error::RecvError::Lagged(_) => Failure::new(
                Code::ResourceExhausted,
                "WATCHER_TOO_SLOW",
                format!("the watcher was more than {BEHIND_MAX} changes behind: list, then watch again"),
            ),
        })
    }
}

fn interrupted() -> Failure {
    Failure::unavailable("the change feed was interrupted: list, then watch again")
}

/// Holds the connection that listens.
pub(crate) struct Listener {
    database: DatabaseConfig,
    asks: mpsc::Receiver<oneshot::Sender<Changes>>,
    /// The dispatcher's: told when any instance queued something.
    queued: Arc<Notify>,
}

/// What the listener turns to next.
enum Turn {
    Told(Option<diesel::QueryResult<PgNotification>>),
    Asked(oneshot::Sender<Changes>),
    Check,
}

impl Listener {
    pub(crate) fn new(database: DatabaseConfig, queued: Arc<Notify>) -> (Feed, Self) {
        let (asks, receiver) = mpsc::channel(WATCHERS_MAX);
        let feed = Feed { asks, places: Arc::new(Semaphore::new(WATCHERS_MAX)) };
        (feed, Self { database, asks: receiver, queued })
    }

    /// Listens until it is stopped; that ends all watches.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.listen() => {}
        }
    }

    /// On one connection after the other.
    async fn listen(mut self) {
        let mut pause = PAUSE_MIN;
        let mut interruption = Interruption::default();
        loop {
            let error = match self.connect().await {
                Ok(connection) => {
                    if interruption.ends() {
                        tracing::info!("the change feed is back");
                    }
                    pause = PAUSE_MIN;
                    // What was told meanwhile went unheard.
                    self.queued.notify_one();
                    self.serve(connection).await
                }
                Err(error) => error,
            };
            // Also in an outage: whether this connection can be had doesn't follow from how the pools fare.
            if interruption.begins() {
                tracing::warn!(error, "the change feed is interrupted: no watching, and the queue is polled");
            } else {
                tracing::debug!(error, ?pause, "the change feed is still interrupted");
            }
            self.rest(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self) -> Result<AsyncPgConnection, String> {
        let connect = async {
            let connection = database::connect_alone(&self.database, "notify-svc listener").await;
            let mut connection = connection.map_err(|error| error.to_string())?;
            feed::listen(&mut connection).await.map_err(|error| error.to_string())?;
            Ok(connection)
        };
        timeout(ANSWER_TIMEOUT, connect).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    /// Waits, while whoever asks is sent away.
    async fn rest(&mut self, pause: Duration) {
        let mut pause = pin!(sleep(pause));
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(asked) = self.asks.recv() => drop(asked),
            }
        }
    }

    /// Hands on what is told until the connection is lost, which ends all watches; says how.
    async fn serve(&mut self, mut connection: AsyncPgConnection) -> String {
        let (changes, _) = broadcast::channel(BEHIND_MAX);
        let mut watched = false;
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = {
                let mut told = pin!(connection.notifications_stream());
                tokio::select! {
                    biased;
                    told = told.next() => Turn::Told(told),
                    Some(asked) = self.asks.recv() => Turn::Asked(asked),
                    _ = checks.tick() => Turn::Check,
                }
            };
            let done = match turn {
                Turn::Told(None) => Err("the connection was closed".to_owned()),
                Turn::Told(Some(Err(error))) => Err(error.to_string()),
                Turn::Told(Some(Ok(told))) => {
                    self.hand_on(&told, &changes);
                    Ok(())
                }
                Turn::Asked(asked) => admit(&mut connection, asked, &changes, &mut watched).await,
                Turn::Check => check(&mut connection, &changes, &mut watched).await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn hand_on(&self, told: &PgNotification, changes: &broadcast::Sender<Arc<Change>>) {
        if told.channel == feed::QUEUED {
            return self.queued.notify_one();
        }
        match feed::changes(&told.payload) {
            // Nobody may be watching any more.
            Some(told) => told.into_iter().for_each(|change| drop(changes.send(Arc::new(change)))),
            None => tracing::warn!(channel = told.channel, "somebody tells what isn't understood"),
        }
    }
}

/// Gives a watcher its place among the changes, once all of them are told.
async fn admit(
    connection: &mut AsyncPgConnection,
    asked: oneshot::Sender<Changes>,
    changes: &broadcast::Sender<Arc<Change>>,
    watched: &mut bool,
) -> Result<(), String> {
    if !*watched {
        answered(feed::watch(connection)).await?;
        *watched = true;
    }
    // Whoever asked may have gone.
    let _ = asked.send(changes.subscribe());
    Ok(())
}

/// A connection can be dead without anybody saying so.
async fn check(
    connection: &mut AsyncPgConnection,
    changes: &broadcast::Sender<Arc<Change>>,
    watched: &mut bool,
) -> Result<(), String> {
    if *watched && changes.receiver_count() == 0 {
        *watched = false;
        return answered(feed::unwatch(connection)).await;
    }
    answered(clock::now(connection)).await.map(drop)
}

async fn answered<T>(work: impl Future<Output = diesel::QueryResult<T>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, work).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn watch(behind_max: usize) -> (broadcast::Sender<Arc<Change>>, Watch) {
        let (sender, changes) = broadcast::channel(behind_max);
        let places = Arc::new(Semaphore::new(1));
        let place = places.try_acquire_owned().expect("a place");
        (sender, Watch { changes, _place: place })
    }

    fn change(attempt: i32) -> Arc<Change> {
        Arc::new(Change {
            notification_id: Uuid::nil(),
            recipient_id: "ada".to_owned(),
            kind: "LEVEL_UP".to_owned(),
            channel: "email".to_owned(),
            state: "SENDING".to_owned(),
            reason: String::new(),
            attempt,
            trace_id: "0".repeat(32),
            change_time: DateTime::UNIX_EPOCH,
        })
    }

    #[tokio::test]
    async fn a_watcher_that_lies_behind_is_sent_away() {
        let (sender, mut watch) = watch(2);
        for attempt in 1..=3 {
            sender.send(change(attempt)).expect("a watcher");
        }
        let failure = watch.next().await.expect_err("a gap");
        assert_eq!((failure.code, failure.reason.as_ref()), (Code::ResourceExhausted, "WATCHER_TOO_SLOW"));
    }

    #[tokio::test]
    async fn what_was_told_before_the_connection_was_lost_is_still_handed_on() {
        let (sender, mut watch) = watch(2);
        sender.send(change(1)).expect("a watcher");
        drop(sender);
        assert_eq!(watch.next().await.expect("a change").attempt, 1);
        assert_eq!(watch.next().await.expect_err("an end").code, Code::Unavailable);
    }
}
