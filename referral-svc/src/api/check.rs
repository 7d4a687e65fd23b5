//! CheckLedger: from a scope, a checkpoint or a resume token to what was found.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use p2phub_proto::referral::v1 as pb;
use service::{call::Deadline, error::Failure};
use tonic::{Request, Response, Status};

use super::{Api, existing_partner, one_of, status};
use crate::{
    app::{Outcome, check_books},
    store::{
        check::{Check, Checkpoint, Examination, KEYS_MAX, Progress, Scope, Unfit},
        partners::Key,
    },
    wire::fields::{self, Checked},
};

/// The longest token that is looked at; this service's are shorter.
const TOKEN_BYTES_MAX: usize = 32 * 1024;

/// What a call asks for.
enum Asked {
    Begin(Scope),
    Resume(Progress),
}

impl Api {
    pub(super) async fn check(
        &self,
        request: Request<pb::CheckLedgerRequest>,
    ) -> Result<Response<pb::CheckLedgerResponse>, Status> {
        let until = Deadline::near(&request);
        let message = request.into_inner();
        let asked = asked(&message).map_err(status::finish)?;
        // Whoever asks about a part needn't wait until all of it is checked.
        let places = if is_whole(&asked) { &self.checking } else { &self.checking_parts };
        let _place = one_of(places).map_err(status::finish)?;
        self.read(async |connection| {
            if let Asked::Begin(Scope::Partner(partner_id)) = asked {
                existing_partner(connection, &Key::Id(partner_id)).await?;
            }
            let (field, began) = match asked {
                Asked::Begin(scope) => ("checkpoint", Examination::begin(&scope, connection).await?),
                Asked::Resume(progress) => ("resume_token", Examination::resume(progress, connection).await?),
            };
            let examination = began.map_err(|unfit| refused(field, unfit))?;
            let of_partner = examination.is_partners();
            // One partner's is short, and can't be gone on with.
            let until = until.filter(|_| !of_partner);
            Ok(match check_books(examination, connection, until).await? {
                Outcome::Ended(checks, checkpoint) => {
                    let checkpoint = if of_partner { String::new() } else { token(&checkpoint) };
                    answer(checks, checkpoint, String::new())
                }
                Outcome::Suspended(examination) => {
                    let progress = examination.progress().ok_or_else(Failure::internal)?;
                    answer(examination.findings(), String::new(), resume_token(&progress)?)
                }
            })
        })
        .await
    }
}

fn asked(message: &pb::CheckLedgerRequest) -> Checked<Asked> {
    let partner_id = fields::optional_id("partner_id", &message.partner_id)?;
    let alone = |field| Failure::violation(field, "can't be asked for together with another field");
    match (partner_id, message.checkpoint.as_str(), message.resume_token.as_str()) {
        (None, "", "") => Ok(Asked::Begin(Scope::Everything)),
        (Some(partner_id), "", "") => Ok(Asked::Begin(Scope::Partner(partner_id))),
        (None, token, "") => checkpoint(token)
            .map(|checkpoint| Asked::Begin(Scope::Since(checkpoint)))
            .ok_or_else(|| Failure::violation("checkpoint", "must be from an answer of this method")),
        (None, "", token) => progress(token)
            .map(Asked::Resume)
            .ok_or_else(|| Failure::violation("resume_token", "must be from an answer of this method")),
        (Some(_), _, "") => Err(alone("checkpoint")),
        _ => Err(alone("resume_token")),
    }
}

fn is_whole(asked: &Asked) -> bool {
    match asked {
        Asked::Begin(scope) => matches!(scope, Scope::Everything),
        Asked::Resume(progress) => progress.is_whole(),
    }
}

fn refused(field: &'static str, unfit: Unfit) -> Failure {
    match unfit {
        Unfit::OtherHistory => {
            Failure::violation(field, "isn't one of this database, or of before its last restore or failover")
        }
        Unfit::TooMuch => {
            let message =
                format!("more than {KEYS_MAX} records of a kind concern the partner: check everything instead");
            Failure::new(tonic::Code::FailedPrecondition, "PARTNER_TOO_LARGE", message)
        }
    }
}

/// Of tokens, the first byte.
const CHECKPOINT_VERSION: u8 = 2;
const RESUME_VERSION: u8 = 1;

fn token(checkpoint: &Checkpoint) -> String {
    let parts = [&[CHECKPOINT_VERSION][..], &checkpoint.number.to_be_bytes(), checkpoint.history.as_bytes()];
    BASE64_URL_SAFE_NO_PAD.encode(parts.concat())
}

fn checkpoint(token: &str) -> Option<Checkpoint> {
    let (number, history) = decoded(token, CHECKPOINT_VERSION)?
        .split_first_chunk()
        .map(|(number, history)| (u64::from_be_bytes(*number), String::from_utf8(history.to_vec())))?;
    Some(Checkpoint { number, history: history.ok()? })
}

fn resume_token(progress: &Progress) -> Checked<String> {
    let content = serde_json::to_vec(progress).map_err(|_| Failure::internal())?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode([&[RESUME_VERSION][..], &content].concat()))
}

fn progress(token: &str) -> Option<Progress> {
    let progress: Progress = serde_json::from_slice(&decoded(token, RESUME_VERSION)?).ok()?;
    progress.is_sound().then_some(progress)
}

fn decoded(token: &str, version: u8) -> Option<Vec<u8>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    match BASE64_URL_SAFE_NO_PAD.decode(token).ok()?.split_first()? {
        (found, content) if *found == version => Some(content.to_vec()),
        _ => None,
    }
}

/// While there is more to look at, nothing is proved.
fn answer(checks: Vec<Check>, checkpoint: String, resume_token: String) -> pb::CheckLedgerResponse {
    let checks: Vec<pb::Check> = checks.into_iter().map(outcome).collect();
    let ok = resume_token.is_empty() && checks.iter().all(|check| check.ok);
    pb::CheckLedgerResponse { ok, checks, checkpoint, resume_token }
}

fn outcome(check: Check) -> pb::Check {
    let detail = match check.offenders {
        0 => String::new(),
        offenders => format!("{offenders} wrong, for example {}", check.examples.join(", ")),
    };
    pb::Check { name: check.name.to_owned(), ok: check.offenders == 0, detail, rows: check.rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let written = Checkpoint { number: u64::MAX, history: "7/1".to_owned() };
        assert_eq!(checkpoint(&token(&written)), Some(written));
        assert_eq!(checkpoint(&BASE64_URL_SAFE_NO_PAD.encode([CHECKPOINT_VERSION, 0, 0])), None);
        assert_eq!(
            checkpoint(&BASE64_URL_SAFE_NO_PAD.encode([1, 0, 0, 0, 0, 0, 0, 0, 1])),
            None,
            "the first version's"
        );
    }

    #[test]
    fn a_resume_token_is_read_as_it_was_written_and_must_say_where_to_go_on() {
        let read = |course: &str| {
            let json = format!(r#"{{"number":7,"history":"7/1","course":{course},"found":{{}}}}"#);
            let written: Progress = serde_json::from_str(&json).expect("progress");
            let read = progress(&resume_token(&written).expect("a token"));
            assert!(read.as_ref().is_none_or(|read| *read == written));
            read.is_some()
        };
        let at = |pass: &str, key: &str| format!(r#"{{"Everything":{{"pass":"{pass}","key":"{key}"}}}}"#);
        assert!(read(&at("entries.sql", "-7/9")));
        assert!(read(&at("xp.sql", "00000000-0000-0000-0000-000000000000")));
        assert!(!read(&at("xp.sql", "7")));
        assert!(!read(&at("entries.sql", "7")));
        assert!(!read(&at("entries.sql", "7/9/0")));
        assert!(!read(&at("unknown.sql", "7/9")));
        assert!(read(r#"{"Since":{"from":7,"until":9,"after":null}}"#));
        assert!(read(r#"{"Since":{"from":7,"until":9,"after":"8/00000000-0000-0000-0000-000000000000/1"}}"#));
        assert!(!read(r#"{"Since":{"from":7,"until":9,"after":"x"}}"#));
    }
}
