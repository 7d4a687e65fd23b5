//! The database: the only place that names tables and columns. Everything above it asks in terms of the domain.
//!
//! One order of locks for everything: inbox keys, then deliveries, both sorted; a notification and its attempts are only
//! written by whoever holds the lock on its open delivery. Claims skip what is locked and never wait.

pub(crate) mod inbox;
pub(crate) mod notifications;
pub(crate) mod queue;
mod schema;
pub(crate) mod settle;

pub(crate) use diesel::result::Error as StoreError;
