//! Many callers at once, on one instance and on two: exact outcomes, whoever wins.

mod confirm;
mod overload;
mod tree;

pub(crate) use confirm::DRESSES;

use p2phub_proto::referral::v1::{CheckLedgerRequest, RegisterPartnerResponse};
use p2phub_tests::{
    builders::{registration, request_id},
    clients::Clients,
    instance::Instance,
    pair::Pair,
    ports,
};
use tokio_postgres::Client;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

/// The stable reason that a failure names.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Code and reason: what callers tell failures apart by.
pub(crate) fn failure<T>(answer: &Result<T, Status>) -> Option<(Code, String)> {
    answer.as_ref().err().map(|status| (status.code(), reason(status)))
}

/// Whether a failure says when to try again.
pub(crate) fn says_when_to_retry(status: &Status) -> bool {
    status.get_error_details().retry_info().is_some_and(|info| info.retry_delay.is_some())
}

/// Whether an answer carries this flag in its headers.
pub(crate) fn has_flag<T>(answer: &Response<T>, name: &str) -> bool {
    answer.metadata().get(name).is_some_and(|value| value == "true")
}

/// The one number that a query yields.
pub(crate) async fn number(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.expect("a row").get(0)
}

/// Fails, naming what is wrong, unless the books balance.
pub(crate) async fn assert_books_balance(clients: &mut Clients) {
    let check = clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    assert!(check.ok, "{:?}", check.checks);
}

/// Everything that the tree promises, worked out anew from who referred whom.
pub(crate) async fn assert_tree_is_right(sql: &Client) {
    const UP: &str = "WITH RECURSIVE up AS (
            SELECT partner_id AS below, referrer_id AS above, 1 AS level FROM partners WHERE referrer_id IS NOT NULL
            UNION ALL
            SELECT up.below, p.referrer_id, up.level + 1 FROM up JOIN partners p ON p.partner_id = up.above
            WHERE p.referrer_id IS NOT NULL AND up.level < 1000
        )";
    let wrong = [
        ("a cycle", "SELECT count(*) FROM up WHERE below = above"),
        (
            "a wrong depth",
            "SELECT count(*) FROM partners p
             WHERE depth <> coalesce((SELECT max(level) FROM up WHERE below = p.partner_id), 0)",
        ),
        (
            "a stale lineage",
            "SELECT count(*) FROM partners p WHERE lineage <> coalesce(
                 (SELECT array_agg(above ORDER BY level) FROM up WHERE below = p.partner_id AND level <= 9), '{}')",
        ),
        (
            "a wrong count",
            "SELECT count(*) FROM standings s, generate_series(1, 9) AS l (level)
             WHERE members[l.level] <> (SELECT count(*) FROM up WHERE above = s.partner_id AND level = l.level)",
        ),
        (
            "XP without its award",
            "SELECT count(*) FROM standings s
             WHERE xp <> coalesce((SELECT sum(xp) FROM xp_awards a WHERE a.partner_id = s.partner_id), 0)",
        ),
    ];
    for (what, query) in wrong {
        assert_eq!(number(sql, &format!("{UP} {query}")).await, 0, "{what}");
    }
}

/// A pair whose referral-svc runs twice on one database.
pub(crate) struct Twice {
    pub(crate) pair: Pair,
    pub(crate) instances: [Clients; 2],
    other: Instance,
}

impl Twice {
    pub(crate) async fn start() -> Self {
        Self::of(Pair::start().await).await
    }

    /// The pair, and its second referral-svc.
    pub(crate) async fn of(pair: Pair) -> Self {
        let address = ports::free();
        let other = pair.another_referral(address).await;
        let instances = [pair.clients.clone(), Clients::new(address, pair.notify_address)];
        Self { pair, instances, other }
    }

    /// Clients of either instance by turns.
    pub(crate) fn by_turns(&self, turn: usize) -> Clients {
        self.instances[turn % 2].clone()
    }

    pub(crate) async fn finish(self) {
        self.other.stop().await;
        self.pair.finish().await;
    }
}

/// Runs calls at once; the answers come in the calls' order.
pub(crate) async fn at_once<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        answers.push(call.await.expect("no panic"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_at_once_on_two_instances_has_one_outcome() {
    let twice = Twice::start().await;
    for round in 0..8 {
        let request = registration(&format!("twice-{round}"), "");
        let answers = at_once((0..16).map(|turn| {
            let (mut clients, request) = (twice.by_turns(turn), request.clone());
            async move { clients.partners.register_partner(request).await.expect("an answer") }
        }))
        .await;
        let first: &RegisterPartnerResponse = answers[0].get_ref();
        assert!(first.created, "a replay is the first answer again");
        assert!(answers.iter().all(|answer| answer.get_ref() == first), "{answers:?}");
        let replays = answers.iter().filter(|answer| has_flag(answer, "idempotent-replay")).count();
        assert_eq!(replays, 15, "one call did it, the others were told so");
    }
    let sql = twice.pair.referral_sql(p2phub_tests::postgres::Role::Owner).await;
    assert_eq!(number(&sql, "SELECT count(*) FROM partners").await, 8);
    assert_eq!(number(&sql, "SELECT count(*) FROM audit_events WHERE action = 'RegisterPartner'").await, 8);
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_at_once_with_two_contents_is_taken_by_one() {
    let twice = Twice::start().await;
    for round in 0..8 {
        let request_id = request_id();
        let answers = at_once((0..2).map(|turn| {
            let mut clients = twice.by_turns(turn);
            let mut request = registration(&format!("either-{round}-{turn}"), "");
            request.request_id.clone_from(&request_id);
            async move { clients.partners.register_partner(request).await }
        }))
        .await;
        let refused: Vec<_> = answers.iter().filter_map(failure).collect();
        assert_eq!(refused, [(Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned())]);
    }
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_external_id_at_once_from_many_callers_is_one_partner() {
    let twice = Twice::start().await;
    let referrer = twice.by_turns(0).register("one-above", "").await;
    let answers = at_once((0..40).map(|turn| {
        let (mut clients, code) = (twice.by_turns(turn), referrer.referral_code.clone());
        // A request ID belongs to its caller: under another name it is another one.
        let mut request = Request::new(registration("one-and-only", &code));
        request.metadata_mut().insert("p2phub-caller", format!("caller-{}", turn % 3).parse().expect("a name"));
        async move { clients.partners.register_partner(request).await.expect("an answer").into_inner() }
    }))
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    let id = |answer: &RegisterPartnerResponse| answer.partner.clone().expect("a partner").partner_id;
    assert!(answers.iter().all(|answer| id(answer) == id(&answers[0])));
    let referrer = twice.by_turns(1).partner(&referrer.partner_id).await;
    assert_eq!((referrer.direct_referrals, referrer.network_size, referrer.xp), (1, 1, 35));
    twice.finish().await;
}
