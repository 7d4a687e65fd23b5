//! What the database's errors mean: away, in the way of another one, or a statement that is wrong.

use diesel::result::{DatabaseErrorKind, Error};

/// In place of diesel's own words: every connection of the pool stayed in use for as long as one waits.
pub(super) const NO_FREE_CONNECTION: &str = "no connection of the pool came free in time";

/// Whether the database was away, going away or too busy, rather than the statement wrong.
pub fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::BrokenTransactionManager => true,
        Error::RollbackErrorOnCommit { commit_error, .. } => is_unavailable(commit_error),
        Error::DatabaseError(kind, info) => match kind {
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::ReadOnlyTransaction => true,
            // All that failed between here and the server, and values that don't fit their columns' types.
            DatabaseErrorKind::UnableToSendCommand => {
                !info.message().starts_with("error serializing") && !info.message().starts_with("error deserializing")
            }
            DatabaseErrorKind::Unknown => says_unavailable(info.message()),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a concurrent transaction was in the way (deadlock, serialisation): nothing was done, and a retry is right.
pub fn is_conflict(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        Error::DatabaseError(DatabaseErrorKind::Unknown, info) => info.message() == "deadlock detected",
        Error::RollbackErrorOnCommit { commit_error, .. } => is_conflict(commit_error),
        _ => false,
    }
}

/// diesel drops the SQLSTATE; these are the messages of 57P01 to 57P05, 57014, 55P03, 53300 and 25P03.
fn says_unavailable(message: &str) -> bool {
    [
        "terminating connection",
        "the database system is",
        "canceling statement due to",
        "sorry, too many clients already",
        "remaining connection slots are reserved",
        "too many connections for",
        "server conn crashed",
    ]
    .iter()
    .any(|start| message.starts_with(start))
}

/// Whether it was there, and didn't get round to it: too much is going on, or something is in the way.
pub(super) fn is_busy(message: &str) -> bool {
    message == NO_FREE_CONNECTION || message.starts_with("canceling statement due to")
}

/// What kind of error it is, for spans and metrics: the message may quote values.
pub(super) fn kind(error: &Error) -> &'static str {
    if is_unavailable(error) {
        return "unavailable";
    }
    if is_conflict(error) {
        return "conflict";
    }
    match error {
        Error::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::UniqueViolation => "UniqueViolation",
            DatabaseErrorKind::ForeignKeyViolation => "ForeignKeyViolation",
            DatabaseErrorKind::NotNullViolation => "NotNullViolation",
            DatabaseErrorKind::CheckViolation => "CheckViolation",
            DatabaseErrorKind::RestrictViolation => "RestrictViolation",
            DatabaseErrorKind::ExclusionViolation => "ExclusionViolation",
            DatabaseErrorKind::UnableToSendCommand => "UnableToSendCommand",
            _ => "Unknown",
        },
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_error(kind: DatabaseErrorKind, message: &str) -> Error {
        Error::DatabaseError(kind, Box::new(message.to_owned()))
    }

    #[test]
    fn an_absent_database_is_told_from_a_wrong_statement() {
        use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand, UniqueViolation, Unknown};
        for (kind, message, away) in [
            (Unknown, "terminating connection due to administrator command", true),
            (Unknown, "the database system is starting up", true),
            (UnableToSendCommand, "connection closed", true),
            (ClosedConnection, "", true),
            (UnableToSendCommand, "error serializing parameter 0", false),
            (Unknown, "column \"x\" does not exist", false),
            (UniqueViolation, "terminating connection", false),
        ] {
            assert_eq!(is_unavailable(&database_error(kind, message)), away, "{message}");
        }
        assert!(!is_unavailable(&Error::NotFound));
        assert!(is_conflict(&database_error(Unknown, "deadlock detected")));
    }

    #[test]
    fn kinds_quote_nothing() {
        use DatabaseErrorKind::{CheckViolation, ClosedConnection, Unknown};
        for (error, expected) in [
            (database_error(CheckViolation, "ada@example.org"), "CheckViolation"),
            (database_error(Unknown, "ada@example.org"), "Unknown"),
            (database_error(ClosedConnection, NO_FREE_CONNECTION), "unavailable"),
            (database_error(Unknown, "deadlock detected"), "conflict"),
            (Error::NotFound, "_OTHER"),
        ] {
            assert_eq!(kind(&error), expected);
        }
    }
}
