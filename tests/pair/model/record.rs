//! What the service put on record of its decisions, in their order: who asked for what, and who is told.

use std::collections::{BTreeMap, HashSet};

use p2phub_proto::notify::v1::{NotificationEvent, NotificationRequest};
use p2phub_tests::{pair::Pair, postgres::Role};
use prost::Message;
use tokio_postgres::Client;

use super::rules::Micros;

/// Refusals that leave a record, but no answer for the request ID, as a list in SQL.
pub(super) const UNREMEMBERED: &str = "'INVALID_ARGUMENT', 'REQUEST_ID_REUSED'";

/// One decision.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) audit_event_id: String,
    pub(super) at: Micros,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) outcome: String,
    /// Empty: a job's.
    pub(super) request_id: String,
    pub(super) told: Vec<NotificationRequest>,
}

/// What the database holds of one partner.
pub(super) struct Held {
    pub(super) partner_id: String,
    /// Available, pending, reserved.
    pub(super) balances: [i64; 3],
    pub(super) xp: i64,
    pub(super) members: Vec<i64>,
}

/// What is new, and what it came to: seen in one moment.
pub(super) struct News {
    /// Oldest first. A job's may come in late: with the next ones, since whatever it has to do with was decided after its
    /// commit.
    pub(super) decided: Vec<Decided>,
    pub(super) held: Vec<Held>,
}

/// Reads what is new, and takes what is told out of the outbox, as a notify-svc would have it taken.
pub(super) struct Record {
    sql: Client,
    /// Read before these nothing is missing any more.
    complete: String,
    newest: String,
    seen: HashSet<String>,
}

impl Record {
    pub(super) async fn of(pair: &Pair) -> Self {
        let sql = pair.referral_sql(Role::Superuser).await;
        let indexes = "CREATE INDEX ON ledger_transactions (audit_event_id) WHERE kind = 'RELEASE';
                       CREATE INDEX ON commissions (release_transaction_id)";
        sql.batch_execute(indexes).await.expect("indexes");
        let nil = "00000000-0000-0000-0000-000000000000".to_owned();
        Self { sql, complete: nil.clone(), newest: nil, seen: HashSet::new() }
    }

    /// Connects anew: the server may have been killed.
    pub(super) async fn connect(&mut self, pair: &Pair) {
        self.sql = pair.referral_sql(Role::Superuser).await;
    }

    /// The decisions since the last time, and what everybody has by them.
    pub(super) async fn news(&mut self) -> News {
        self.sql.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.expect("a snapshot");
        let (decided, taken) = self.decided().await;
        let held = self.held().await;
        self.sql.batch_execute("COMMIT").await.expect("an end");
        let settle = "SELECT settle_events($1::text[]::uuid[])";
        self.sql.execute(settle, &[&taken]).await.expect("a deletion");
        self.remember(&decided);
        News { decided, held }
    }

    async fn held(&self) -> Vec<Held> {
        let query = "SELECT s.partner_id::text, s.xp, s.members::bigint[],
                         ARRAY(SELECT coalesce(sum(a.balance), 0)::bigint
                             FROM unnest('{PARTNER_AVAILABLE, PARTNER_PENDING, PARTNER_RESERVED}'::text[])
                                 WITH ORDINALITY AS p (purpose, place)
                             LEFT JOIN accounts a ON a.purpose = p.purpose AND a.owner_id = s.partner_id
                             GROUP BY p.place ORDER BY p.place)
                     FROM standings s";
        let rows = self.sql.query(query, &[]).await.expect("rows");
        let held = rows.iter().map(|row| Held {
            partner_id: row.get(0),
            xp: row.get(1),
            members: row.get(2),
            balances: row.get::<_, Vec<i64>>(3).try_into().expect("three balances"),
        });
        held.collect()
    }

    /// Returns also whose events in the outbox were looked at.
    async fn decided(&self) -> (Vec<Decided>, Vec<String>) {
        let query = format!(
            "SELECT audit_event_id::text, (extract(epoch FROM create_time) * 1000000)::bigint, actor, action, outcome,
                 coalesce(request_id::text, ''), coalesce(notices, 0)
             FROM audit_events WHERE audit_event_id > $1::text::uuid AND outcome NOT IN ({UNREMEMBERED})
             ORDER BY audit_event_id"
        );
        let rows = self.sql.query(&query, &[&self.complete]).await.expect("rows");
        let events = self.sql.query("SELECT event_id::text, event FROM outbox", &[]).await.expect("rows");
        let mut events: BTreeMap<String, Vec<u8>> = events.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut taken = Vec::new();
        let mut news = Vec::new();
        for row in rows {
            let audit_event_id: String = row.get(0);
            if self.seen.contains(&audit_event_id) {
                continue;
            }
            let notices: i32 = row.get(6);
            let told = if notices > 0 {
                // The record's ID and its event's are made one after the other.
                let (event_id, _) = events.range(audit_event_id.clone()..).next().expect("an event for the notices");
                let event_id = event_id.clone();
                let event = events.remove(&event_id).expect("an event");
                taken.push(event_id);
                NotificationEvent::decode(event.as_slice()).expect("an event").requests
            } else {
                Vec::new()
            };
            assert_eq!(i32::try_from(told.len()), Ok(notices), "as many are told as were counted");
            news.push(Decided {
                at: row.get(1),
                actor: row.get(2),
                action: row.get(3),
                outcome: row.get(4),
                request_id: row.get(5),
                told,
                audit_event_id,
            });
        }
        (news, taken)
    }

    fn remember(&mut self, news: &[Decided]) {
        let before = std::mem::replace(&mut self.complete, self.newest.clone());
        self.seen.retain(|id| *id > before);
        for decided in news {
            self.seen.insert(decided.audit_event_id.clone());
            self.newest = self.newest.clone().max(decided.audit_event_id.clone());
        }
    }

    /// What a job's command released: payment, level, and the transaction that booked it.
    pub(super) async fn released(&self, audit_event_id: &str) -> Vec<(String, i32, String)> {
        let query = "SELECT c.payment_id::text, c.level::int, c.release_transaction_id::text
                     FROM ledger_transactions t JOIN commissions c ON c.release_transaction_id = t.transaction_id
                     WHERE t.kind = 'RELEASE' AND t.audit_event_id = $1::text::uuid";
        let rows = self.sql.query(query, &[&audit_event_id]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// How much is due by the shifted clock and was not done yet, counts of PRO included.
    pub(super) async fn due(&self, ahead: Micros) -> i64 {
        let query = "SELECT
                (SELECT count(*) FROM commissions WHERE state = 'PENDING' AND release_time <= now)
                + (SELECT count(*) FROM standings
                   WHERE (notices_sent = 0 AND pro_expires_at <= now + interval '3 days')
                       OR (notices_sent = 1 AND pro_expires_at <= now + interval '1 day')
                       OR (notices_sent = 2 AND pro_expires_at <= now)
                       OR counted_as_pro <> coalesce(pro_expires_at > now, false))
            FROM (SELECT clock_timestamp() + $1::bigint * interval '1 microsecond' AS now) c";
        self.sql.query_one(query, &[&ahead]).await.expect("a row").get(0)
    }

    pub(super) async fn number(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.expect("a row").get(0)
    }
}
