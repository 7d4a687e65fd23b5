//! Up to where the records were proved, as an opaque text.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};

/// What was committed by the time of a proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    /// As PostgreSQL writes a snapshot.
    pub(super) snapshot: String,
    /// The server's, in which the snapshot means something.
    pub(super) history: String,
    pub(super) time: DateTime<Utc>,
}

impl Checkpoint {
    pub(crate) fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {} {}", self.snapshot, self.time.timestamp_micros(), self.history))
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (snapshot, rest) = text.split_once(' ')?;
        let (micros, history) = rest.split_once(' ')?;
        let time = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        is_snapshot(snapshot).then(|| Self { snapshot: snapshot.to_owned(), history: history.to_owned(), time })
    }
}

/// Whether PostgreSQL would read it as a `pg_snapshot`: lowest running, next to come, and the running between, in order.
fn is_snapshot(text: &str) -> bool {
    const XID_MAX: u64 = i64::MAX.unsigned_abs();
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| (1..=XID_MAX).contains(number));
    let mut parts = text.split(':');
    let (Some(low), Some(high), Some(running), None) =
        (parts.next().and_then(number), parts.next().and_then(number), parts.next(), parts.next())
    else {
        return false;
    };
    let running: Option<Vec<u64>> = running.split(',').filter(|_| !running.is_empty()).map(number).collect();
    running.is_some_and(|running| {
        low <= high && running.is_sorted() && running.iter().all(|running| (low..high).contains(running))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        for snapshot in ["10:10:", "10:20:10,14,15"] {
            let checkpoint = Checkpoint { snapshot: snapshot.to_owned(), history: "7/1".to_owned(), time };
            assert_eq!(Checkpoint::from_text(&checkpoint.to_text()), Some(checkpoint), "{snapshot}");
        }
    }

    #[test]
    fn what_is_no_snapshot_is_not_taken() {
        for snapshot in ["", "10:20", "10:20:30", "20:10:", "0:10:", "10:20:15,14", "10:20:x", "10:20::", "10:20:,"] {
            assert!(!is_snapshot(snapshot), "{snapshot}");
        }
        assert_eq!(Checkpoint::from_text("%"), None);
    }
}
