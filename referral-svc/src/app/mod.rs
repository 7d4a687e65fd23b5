//! The use cases: commands, committed in batches, and the jobs that run beside them.

mod batch;
mod bookkeeper;
mod broadcaster;
mod committer;
mod load;
mod proof;
mod publisher;
mod queue;
mod sampler;
mod signer;
mod sweeper;
mod verifier;
mod write;

pub(crate) use batch::Rules;
pub(crate) use bookkeeper::{Bookkeeper, Outcome, check_books};
pub(crate) use broadcaster::Broadcaster;
pub(crate) use committer::Committer;
pub(crate) use proof::{Checkpoint, FaultKind, Proof, prove};
pub(crate) use publisher::Publisher;
pub(crate) use queue::{CommandQueue, Failed, Queued, Settled};
pub(crate) use sampler::run as run_sampler;
pub(crate) use signer::{Signed, Signer};
pub(crate) use sweeper::Sweeper;
pub(crate) use verifier::{Verifications, keep_rate};
