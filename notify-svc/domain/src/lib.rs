//! The rules of delivery, pure: what a notification is, which channel comes next, when to try again, what an answer means.
//!
//! Nothing here waits, reads a clock or touches a database: time and randomness are arguments.
//!
//! ```text
//!             claim               answer
//!   QUEUED ──────────▶ SENDING ──────────▶ DELIVERED
//!     ▲ │                 │  └─ gives up ─▶ FAILED ──▶ the next channel's delivery, QUEUED; none: DEAD
//!     │ └ its time passed │
//!     │       EXPIRED     │ transient, ambiguous, configuration
//!     └───────────────────┘ (retry)
//! ```
#![cfg_attr(not(test), deny(clippy::float_arithmetic, clippy::arithmetic_side_effects))]

pub mod admission;
pub mod answer;
pub mod channel;
pub mod delivery;
pub mod event;
pub mod gate;
pub mod kind;
pub mod lane;
pub mod policy;
pub mod preference;
pub mod retry;
pub mod state;
pub mod target;
pub mod text;
