//! An outage of the database is told once: at its first failure, by whoever meets that, and when it is over.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use diesel::result::Error;

use super::errors::{is_busy, is_unavailable};

/// What a service knows of its database. However many calls fail, the log says it once.
pub(super) struct Outage {
    /// Whose database it is.
    service: &'static str,
    current: Mutex<Option<Current>>,
}

/// An outage that goes on.
struct Current {
    begin: Instant,
    failures: u64,
    /// Gone, rather than too busy.
    is_away: bool,
    /// Nothing has failed since the last answer.
    is_quiet: bool,
}

/// What a failure tells that was not known.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// The database is gone.
    Away,
    /// It is too busy.
    Busy,
    Nothing,
}

impl Outage {
    pub(super) fn new(service: &'static str) -> Self {
        Self { service, current: Mutex::default() }
    }

    /// Whether the error is one of an outage; then it is taken note of.
    pub(super) fn note(&self, error: &Error) -> bool {
        if !is_unavailable(error) {
            return false;
        }
        // Messages of such errors come from the server and the network, and quote no values.
        let message = match error {
            Error::DatabaseError(_, info) => info.message().to_owned(),
            error => error.to_string(),
        };
        self.log(self.failed(is_busy(&message)), &message);
        true
    }

    pub(super) fn unanswered(&self, error: &str) {
        self.log(self.failed(false), error);
    }

    pub(super) fn answered(&self) {
        if let Some(Current { begin, failures, .. }) = self.ended() {
            let seconds = begin.elapsed().as_secs_f64();
            tracing::info!(service = self.service, seconds, failures, "the database answers again");
        }
    }

    /// Over once nothing failed between two answers: where much fails and something succeeds, each answer would end one.
    fn ended(&self) -> Option<Current> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = current.as_mut()
            && !outage.is_quiet
        {
            outage.is_quiet = true;
            return None;
        }
        current.take()
    }

    fn failed(&self, is_busy: bool) -> News {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = current.is_none();
        let outage = current.get_or_insert_with(|| Current {
            begin: Instant::now(),
            failures: 0,
            is_away: false,
            is_quiet: false,
        });
        outage.failures += 1;
        outage.is_quiet = false;
        match is_busy {
            false if !outage.is_away => {
                outage.is_away = true;
                News::Away
            }
            true if begins => News::Busy,
            _ => News::Nothing,
        }
    }

    fn log(&self, news: News, error: &str) {
        let service = self.service;
        match news {
            News::Away => tracing::error!(service, error, "the database is away: what needs it fails until it answers"),
            News::Busy => tracing::warn!(service, error, "the database is too busy: calls are turned away"),
            News::Nothing => tracing::debug!(service, error, "the database is still away"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_news_once_until_it_is_over() {
        let outage = Outage::new("a test");
        assert!(outage.ended().is_none());
        for _ in 0..2 {
            assert_eq!(outage.failed(false), News::Away);
            assert_eq!([outage.failed(false), outage.failed(true)], [News::Nothing, News::Nothing]);
            assert!(outage.ended().is_none(), "something failed since the last answer");
            assert_eq!(outage.failed(false), News::Nothing);
            assert!(outage.ended().is_none());
            assert_eq!(outage.ended().map(|outage| outage.failures), Some(4));
        }
        assert!(outage.ended().is_none());
    }

    #[test]
    fn a_database_that_is_too_busy_may_still_go_away() {
        let outage = Outage::new("a test");
        assert_eq!([outage.failed(true), outage.failed(true)], [News::Busy, News::Nothing]);
        assert_eq!([outage.failed(false), outage.failed(true)], [News::Away, News::Nothing]);
    }

    #[test]
    fn a_wrong_statement_is_no_outage() {
        let outage = Outage::new("a test");
        assert!(!outage.note(&Error::NotFound));
        assert!(outage.note(&Error::BrokenTransactionManager));
    }
}
