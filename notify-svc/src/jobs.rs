//! Durable jobs, step by step: what an operator has asked for is done by whichever instances run, exactly once.

use std::{sync::Arc, time::Duration};

use service::database::{self, Pool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::{StoreError, in_time, inbox::Rules, jobs, redrive};

/// How often the table is looked at when nobody told of a new job.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long a job is left alone whose step fails for its own sake.
const PUT_OFF: Duration = Duration::from_secs(60);

/// Takes the steps of jobs.
pub(crate) struct Jobs {
    pub(crate) pool: Pool,
    /// The same that hold for what comes in.
    pub(crate) rules: Rules,
    /// Told when this process has made a job.
    pub(crate) created: Arc<Notify>,
    /// The dispatcher's: told when something was queued.
    pub(crate) queued: Arc<Notify>,
}

impl Jobs {
    /// Works until it is stopped. A step that is cut short is undone.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut away = false;
        loop {
            let turn = tokio::select! {
                () = stop.cancelled() => return,
                turn = in_time(self.turn()) => turn,
            };
            if let Err(error) = &turn
                && !self.pool.note(error)
                && !away
            {
                tracing::warn!(%error, "jobs can't be worked on for now");
            }
            away = turn.is_err();
            let pause = turn.unwrap_or(POLL_INTERVAL);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.created.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes a step, if one is due, and says how long there is nothing else to do.
    async fn turn(&self) -> Result<Duration, StoreError> {
        let mut connection = database::connect(&self.pool).await?;
        match redrive::step(&mut connection, &self.rules).await {
            Ok(Some(taken)) => {
                if taken.queued > 0 {
                    self.queued.notify_one();
                }
                if taken.ended {
                    let (job_id, done) = (taken.job.job_id, taken.job.done);
                    tracing::info!(%job_id, done, trace_id = taken.job.trace_id, "a job is done");
                }
            }
            Ok(None) => {}
            Err(error) if database::is_unavailable(&error) || database::is_conflict(&error) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a step of a job can't be taken: put off");
                jobs::put_off(&mut connection, PUT_OFF).await?;
            }
        }
        let next = jobs::next_due(&mut connection).await?;
        // Due, and yet not taken: another instance holds it.
        Ok(next.map_or(POLL_INTERVAL, |next| next.clamp(Duration::from_millis(20), POLL_INTERVAL)))
    }
}
