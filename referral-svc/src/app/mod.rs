//! The use cases: commands, committed in batches, and the jobs that run beside them.

mod batch;
mod broadcaster;
mod census;
mod committer;
mod load;
mod publisher;
mod queue;
mod write;

pub(crate) use batch::Rules;
pub(crate) use broadcaster::Broadcaster;
pub(crate) use census::run as run_census;
pub(crate) use committer::Committer;
pub(crate) use publisher::Publisher;
pub(crate) use queue::{CommandQueue, Failed, Queued, Settled};
