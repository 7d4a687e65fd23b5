//! A step fails in the middle, or at the very end: nothing of the command stays, and the same request succeeds later.

use std::time::Duration;

use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationKind},
    referral::v1::{CheckLedgerRequest, PaymentState},
};
use p2phub_tests::{
    builders::{confirmation, registration},
    pair::{Options, Pair},
    postgres::Role,
    refusal::{is_marked, refused},
};
use tokio::time::timeout;
use tokio_postgres::Client;
use tonic::Code;

use super::{outbox_empties, told};

/// No call hangs on a fault.
const BOUND: Duration = Duration::from_secs(10);

/// What one command may write to.
const TABLES: [&str; 13] = [
    "plans",
    "partners",
    "standings",
    "xp_awards",
    "payments",
    "late_references",
    "accounts",
    "ledger_transactions",
    "ledger_entries",
    "commissions",
    "requests",
    "audit_events",
    "outbox",
];

/// Every row of every table, as one digest for each table.
async fn everything(client: &Client) -> Vec<(&'static str, String)> {
    let mut digests = Vec::new();
    for table in TABLES {
        let sql = format!("SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t");
        digests.push((table, client.query_one(&sql, &[]).await.expect("a digest").get(0)));
    }
    digests
}

/// Lets every insert into a table fail; `deferred`: at COMMIT, when all statements have succeeded.
async fn break_table(owner: &Client, table: &str, deferred: bool) {
    let trigger = if deferred {
        format!("CREATE CONSTRAINT TRIGGER fault AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED")
    } else {
        format!("CREATE TRIGGER fault BEFORE INSERT ON {table}")
    };
    let sql = format!(
        "CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''a secret fault''; END';
         {trigger} FOR EACH ROW EXECUTE FUNCTION fault()"
    );
    owner.batch_execute(&sql).await.expect("a trigger");
}

async fn mend_table(owner: &Client, table: &str) {
    owner.batch_execute(&format!("DROP TRIGGER fault ON {table}")).await.expect("a trigger less");
}

/// Breaks each of these tables in turn, confirms a payment in vain, mends it, and confirms with the same request.
async fn a_sale_is_all_or_nothing(tables: &[&str], deferred: bool) {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let owner = pair.referral_sql(Role::Owner).await;
    for (round, table) in (1..).zip(tables) {
        let chain = clients.chain(&format!("chain-{round}"), 3).await;
        let buyer = &chain[2].partner_id;
        let payment = clients.open_payment(buyer).await;
        let request = confirmation(&payment.payment_id, &format!("money-{round}"));
        let before = everything(&owner).await;
        break_table(&owner, table, deferred).await;

        let answer =
            timeout(BOUND, clients.payments.confirm_payment(request.clone())).await.expect("an answer in time");
        let status = refused(answer, Code::Internal, "INTERNAL");
        assert!(!status.message().contains("secret") && !status.message().contains(table), "{status}");
        assert_eq!(everything(&owner).await, before, "{table} failed, and something stayed");
        assert!(!clients.partner(buyer).await.pro_active);
        assert_eq!(clients.balance(&chain[1].partner_id).await, 0);

        mend_table(&owner, table).await;
        let answer = clients.payments.confirm_payment(request).await.expect("a confirmation");
        assert!(!is_marked(&answer, "idempotent-replay"), "{table}: a failure was remembered");
        assert_eq!(answer.get_ref().commissions.len(), 2);
        assert_eq!(answer.get_ref().payment.as_ref().map(|payment| payment.state()), Some(PaymentState::Succeeded));
        assert!(clients.partner(buyer).await.pro_active);
        assert_eq!(clients.balance(&chain[1].partner_id).await, 11_700_000);
    }
    let check = clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    assert!(check.ok, "{check:?}");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_upgrade_is_committed_without_its_commissions() {
    let steps = ["commissions", "ledger_transactions", "ledger_entries", "audit_events", "outbox", "requests"];
    a_sale_is_all_or_nothing(&steps, false).await;
}

/// Whatever commits on its own, nested or early, would still be there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_before_the_one_commit_at_the_end() {
    a_sale_is_all_or_nothing(&["ledger_entries", "requests"], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signup_that_fails_half_way_up_the_lineage_ends_and_can_be_repeated() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let owner = pair.referral_sql(Role::Owner).await;
    let chain = clients.chain("chain", 10).await;
    let before = everything(&owner).await;
    // Only the fifth ancestor's award fails.
    let sql = "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a fault''; END';
        CREATE TRIGGER fault BEFORE INSERT ON xp_awards FOR EACH ROW WHEN (NEW.level = 5) EXECUTE FUNCTION fault()";
    owner.batch_execute(sql).await.expect("a trigger");

    let request = registration("eleventh", &chain[9].referral_code);
    let answer = timeout(BOUND, clients.partners.register_partner(request.clone())).await.expect("an answer in time");
    refused(answer, Code::Internal, "INTERNAL");
    assert_eq!(everything(&owner).await, before);
    // The one who fails stops nobody else: not even those who come at the same moment.
    let mut neighbours = Vec::new();
    for index in 0..8 {
        let (mut others, mut failing) = (clients.clone(), clients.clone());
        let request = registration(&format!("failing-{index}"), &chain[9].referral_code);
        let external_id = format!("neighbour-{index}");
        neighbours.push(tokio::spawn(async move {
            let register = registration(&external_id, "");
            let calls = futures_util::future::join(
                others.partners.register_partner(register),
                failing.partners.register_partner(request),
            );
            timeout(BOUND, calls).await.expect("answers in time")
        }));
    }
    for neighbour in neighbours {
        let (good, bad) = neighbour.await.expect("no panic");
        assert!(good.expect("a registration").into_inner().created);
        refused(bad, Code::Internal, "INTERNAL");
    }

    mend_table(&owner, "xp_awards").await;
    let answer = clients.partners.register_partner(request).await.expect("a registration");
    assert!(answer.get_ref().created && !is_marked(&answer, "idempotent-replay"));
    assert_eq!(clients.partner(&chain[9].partner_id).await.xp, 35);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_notified_of_what_was_not_committed() {
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    let owner = pair.referral_sql(Role::Owner).await;
    let chain = clients.chain("chain", 2).await;
    let payment = clients.open_payment(&chain[1].partner_id).await;
    // All is written, the outbox row too; only the COMMIT fails.
    break_table(&owner, "outbox", true).await;
    let request = confirmation(&payment.payment_id, "money");
    let answer = timeout(BOUND, clients.payments.confirm_payment(request)).await.expect("an answer in time");
    refused(answer, Code::Internal, "INTERNAL");
    mend_table(&owner, "outbox").await;

    // Once the outbox is empty, all that was ever to be sent has arrived.
    clients.buy_pro(&chain[0].partner_id).await;
    told(&mut clients, &chain[0].partner_id, NotificationKind::ProWelcome).await;
    outbox_empties(&owner).await;
    let notify = pair.notify_sql(Role::Service).await;
    let row = notify.query_one("SELECT count(*) FROM inbox", &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 2, "one signup and one sale");
    for (partner, kinds) in [(0, vec![NotificationKind::ProWelcome, NotificationKind::SignupL1]), (1, vec![])] {
        let request =
            ListNotificationsRequest { recipient_id: chain[partner].partner_id.clone(), ..Default::default() };
        let found = clients.notifications.list_notifications(request).await.expect("an answer").into_inner();
        assert_eq!(found.notifications.iter().map(|one| one.kind()).collect::<Vec<_>>(), kinds);
    }
    pair.finish().await;
}
