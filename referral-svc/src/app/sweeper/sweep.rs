//! The kinds of things that become due, and how each is found and done.

use std::{collections::BTreeSet, fmt};

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use referral_domain::{command::Command, commission::CommissionKey, id::PartnerId};

use crate::store::{Result, commissions, standings};

/// One kind of thing that becomes due.
#[derive(Clone, Copy)]
pub(super) enum Sweep {
    /// The ancestors' PRO counts follow whose PRO began or ended.
    CountProMembers,
    /// Partners hear of their PRO's end.
    SendProNotices,
    /// Held commissions become available.
    ReleaseCommissions,
}

/// One row that is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    Partner(PartnerId),
    Commission(CommissionKey),
}

impl Row {
    fn partner(self) -> Option<PartnerId> {
        match self {
            Self::Partner(partner_id) => Some(partner_id),
            Self::Commission(_) => None,
        }
    }

    fn commission(self) -> Option<CommissionKey> {
        match self {
            Self::Commission(key) => Some(key),
            Self::Partner(_) => None,
        }
    }
}

/// As the ID of the partner or commission.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partner(partner_id) => write!(f, "{partner_id}"),
            Self::Commission((payment_id, level)) => write!(f, "{payment_id}.{level}"),
        }
    }
}

impl Sweep {
    pub(super) const ALL: [Self; 3] = [Self::CountProMembers, Self::SendProNotices, Self::ReleaseCommissions];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CountProMembers => "CountProMembers",
            Self::SendProNotices => "SendProNotices",
            Self::ReleaseCommissions => "ReleaseCommissions",
        }
    }

    /// What is due, but for what is to be passed over: `limit` rows at most.
    pub(super) async fn due(
        self,
        connection: &mut AsyncPgConnection,
        now: DateTime<Utc>,
        passed_over: &BTreeSet<Row>,
        limit: i64,
    ) -> Result<Vec<Row>> {
        let partners: Vec<PartnerId> = passed_over.iter().filter_map(|row| row.partner()).collect();
        let keys: Vec<CommissionKey> = passed_over.iter().filter_map(|row| row.commission()).collect();
        let partners = match self {
            Self::CountProMembers => standings::miscounted(connection, now, &partners, limit).await?,
            Self::SendProNotices => standings::due_for_notice(connection, now, &partners, limit).await?,
            Self::ReleaseCommissions => {
                let due = commissions::due(connection, now, &keys, limit).await?;
                return Ok(due.into_iter().map(Row::Commission).collect());
            }
        };
        // Each of several reasons has found so many.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(partners.into_iter().map(Row::Partner).take(limit).collect())
    }

    /// The command that does it for these rows.
    pub(super) fn command(self, rows: &[Row]) -> Command {
        let partner_ids = || rows.iter().filter_map(|row| row.partner()).collect();
        match self {
            Self::CountProMembers => Command::CountProMembers { partner_ids: partner_ids() },
            Self::SendProNotices => Command::SendProNotices { partner_ids: partner_ids() },
            Self::ReleaseCommissions => {
                Command::ReleaseCommissions { commissions: rows.iter().filter_map(|row| row.commission()).collect() }
            }
        }
    }
}
