//! How far a check got, so that a later call, of any instance, goes on with it.

use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};

use super::{
    Began, Checkpoint, Course, Examination, Place, Result, Unfit, found::Findings, now, passes::PASSES, scope::Page,
};

/// A check that isn't at its end.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// What was there when it began.
    number: u64,
    history: String,
    course: Way,
    found: Findings,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
enum Way {
    /// The statement, and the key that it goes on from.
    Everything { pass: String, key: String },
    /// The page that is to be looked at next.
    Since { from: u64, until: u64, after: Option<String> },
}

impl Progress {
    /// Whether it is everything that is checked.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.course, Way::Everything { .. })
    }

    /// Whether it says where to go on. What it says is otherwise the caller's own loss.
    pub(crate) fn is_sound(&self) -> bool {
        match &self.course {
            Way::Everything { pass, key } => PASSES.iter().any(|known| known.name == pass && known.things.is_key(key)),
            Way::Since { after, .. } => after.as_deref().is_none_or(Page::is_key),
        }
    }
}

impl Examination {
    /// How far it got; none: one partner's can't be gone on with.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let (course, found) = match &self.course {
            Course::Everything => {
                let pass = PASSES.get(self.pass)?;
                let key = if let Place::Key(key) = &self.at { key.clone() } else { pass.things.first() };
                (Way::Everything { pass: pass.name.to_owned(), key }, &self.findings)
            }
            // The page once more: what was found on it doesn't count yet.
            Course::Since { page, before } => {
                (Way::Since { from: page.from, until: page.until, after: page.begin.clone() }, before)
            }
            Course::Partner(_) => return None,
        };
        let Checkpoint { number, history } = self.began.clone();
        Some(Progress { number, history, course, found: found.clone() })
    }

    /// Goes on where another ended.
    pub(crate) async fn resume(progress: Progress, connection: &mut AsyncPgConnection) -> Result<Began> {
        let (now, next_transaction) = now(connection).await?;
        if progress.history != now.history || progress.number > now.number {
            return Ok(Err(Unfit::OtherHistory));
        }
        let (course, pass, at) = match progress.course {
            Way::Everything { pass, key } => {
                let Some(pass) = PASSES.iter().position(|known| known.name == pass) else {
                    return Ok(Err(Unfit::OtherHistory));
                };
                (Course::Everything, pass, Place::Key(key))
            }
            Way::Since { from, until, after } => {
                let page = Self::page_after(&Page::at(from, until, after), connection).await?;
                (Course::Since { page, before: progress.found.clone() }, 0, Place::Begin)
            }
        };
        let began = Checkpoint { number: progress.number, history: progress.history };
        let findings = progress.found;
        let mut examination =
            Self { began, resumed: true, course, pass, at: Place::Begin, size: 0, findings, next_transaction };
        examination.go_to(pass, at);
        Ok(Ok(examination))
    }
}
