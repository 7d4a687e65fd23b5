//! Held commissions become available: one ledger transaction an earner.

use std::collections::BTreeMap;

use super::{Context, Result, Undecided, Verdict};
use crate::{
    command::Outcome,
    commission::{Commission, CommissionKey, Hold},
    id::{IdSource, PartnerId, TransactionId},
    money::Asset,
    posting::{Movement, Subject, Transaction},
    state::{Changes, State},
};

/// Releases those whose time has come, and that nobody released before.
pub(super) fn release(
    state: &State,
    commissions: &[CommissionKey],
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let mut by_earner: BTreeMap<(PartnerId, Asset), Vec<&Commission>> = BTreeMap::new();
    for key in commissions {
        let commission = state.commissions.get(key).ok_or(Undecided::Incomplete("a held commission"))?;
        if commission.hold.is_some_and(|hold| hold.is_held && hold.release_time <= context.now) {
            by_earner.entry((commission.earner_id, commission.amount.asset())).or_default().push(commission);
        }
    }
    let mut changes = Changes::default();
    for ((earner_id, asset), commissions) in by_earner {
        let left = commissions.iter().map(|commission| commission.left()).fold(0, i64::saturating_add);
        let transaction_id = if left > 0 {
            let transaction = Transaction {
                transaction_id: ids.make(),
                subject: Subject::Release,
                create_time: context.now,
                entries: Movement::release(earner_id, asset, left)?.entries(&state.accounts)?,
            };
            let transaction_id = transaction.transaction_id;
            changes.transactions.push(transaction);
            Some(transaction_id)
        } else {
            None
        };
        changes
            .changed_commissions
            .extend(commissions.into_iter().map(|commission| released(commission, transaction_id)));
    }
    Ok(Verdict::done(Outcome::Released, changes))
}

/// The commission, no longer held. One that refunds took back whole has nothing that a transaction could release.
fn released(commission: &Commission, transaction_id: Option<TransactionId>) -> Commission {
    let hold = commission.hold.map(|hold| Hold {
        is_held: false,
        transaction_id: transaction_id.filter(|_| commission.left() > 0),
        ..hold
    });
    Commission { hold, ..commission.clone() }
}
