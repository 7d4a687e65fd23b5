//! Signups and sales, from many callers at once, each repeated under its request ID until it succeeds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2phub_proto::referral::v1::{CreatePaymentRequest, Partner, Product};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::Clients,
    pair::Pair,
    postgres::Role,
    wait,
};
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

use crate::concurrency::{assert_books_balance, assert_tree_is_right, number, reason, says_when_to_retry};

/// A failure that outlasts this many repetitions is no outage.
const TRIES_MAX: usize = 600;

#[derive(Default)]
struct Progress {
    done: AtomicUsize,
    failures: AtomicUsize,
    stop: AtomicBool,
}

/// Callers at work.
pub(super) struct Load {
    root: Partner,
    progress: Arc<Progress>,
    callers: Vec<JoinHandle<usize>>,
}

/// What they achieved.
pub(super) struct Done {
    root: Partner,
    /// Signups below the root, each of whom bought PRO once.
    pub(super) people: usize,
    /// How often a call failed and was repeated.
    pub(super) failures: usize,
}

impl Load {
    pub(super) async fn start(pair: &Pair, callers: usize) -> Self {
        let root = pair.clients.clone().register("root", "").await;
        let progress = Arc::new(Progress::default());
        let callers = (0..callers).map(|caller| {
            let (clients, code) = (pair.clients.clone(), root.referral_code.clone());
            tokio::spawn(work(clients, caller, code, progress.clone()))
        });
        Self { callers: callers.collect(), root, progress }
    }

    /// Waits for so many more successful calls.
    pub(super) async fn advance(&self, calls: usize) {
        let goal = self.progress.done.load(Ordering::SeqCst) + calls;
        wait::until("calls to succeed", async || {
            self.assert_all_at_work();
            (self.progress.done.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    /// Waits for so many more failures.
    pub(super) async fn meet_failures(&self, calls: usize) {
        let goal = self.progress.failures.load(Ordering::SeqCst) + calls;
        wait::until("calls to fail", async || {
            self.assert_all_at_work();
            (self.progress.failures.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    fn assert_all_at_work(&self) {
        assert!(!self.callers.iter().any(JoinHandle::is_finished), "a caller met a failure that it must not meet");
    }

    /// Has each caller finish what it began.
    pub(super) async fn finish(self) -> Done {
        self.progress.stop.store(true, Ordering::SeqCst);
        let mut people = 0;
        for caller in self.callers {
            people += caller.await.expect("a caller that met no failure but those allowed");
        }
        Done { root: self.root, people, failures: self.progress.failures.load(Ordering::SeqCst) }
    }
}

async fn work(clients: Clients, caller: usize, code: String, progress: Arc<Progress>) -> usize {
    let mut people = 0;
    while !progress.stop.load(Ordering::SeqCst) {
        let request = registration(&format!("caller-{caller}-{people}"), &code);
        let answer = insist(&progress, || {
            let (mut clients, request) = (clients.clone(), request.clone());
            async move { clients.partners.register_partner(request).await }
        })
        .await;
        let partner = answer.into_inner().partner.expect("a partner");
        let request = CreatePaymentRequest {
            request_id: request_id(),
            partner_id: partner.partner_id,
            product: Product::ProMonthly.into(),
            method: "trusted".to_owned(),
        };
        let answer = insist(&progress, || {
            let (mut clients, request) = (clients.clone(), request.clone());
            async move { clients.payments.create_payment(request).await }
        })
        .await;
        let payment_id = answer.into_inner().payment.expect("a payment").payment_id;
        let request = confirmation(&payment_id, &format!("paid-{caller}-{people}"));
        let answer = insist(&progress, || {
            let (mut clients, request) = (clients.clone(), request.clone());
            async move { clients.payments.confirm_payment(request).await }
        })
        .await;
        let commissions = answer.into_inner().commissions;
        assert_eq!(commissions.len(), 1, "one stands above");
        people += 1;
    }
    people
}

/// Repeats a call, with the same request ID, for as long as it fails as an outage makes it fail.
async fn insist<T, F>(progress: &Progress, call: impl Fn() -> F) -> Response<T>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for _ in 0..TRIES_MAX {
        match call().await {
            Ok(answer) => {
                progress.done.fetch_add(1, Ordering::SeqCst);
                return answer;
            }
            Err(status) => {
                let allowed = [(Code::Unavailable, "UNAVAILABLE"), (Code::Unknown, "OUTCOME_UNKNOWN")];
                let (code, reason) = (status.code(), reason(&status));
                assert!(allowed.contains(&(code, reason.as_str())), "{status:?}");
                assert!(says_when_to_retry(&status), "{status:?}");
                progress.failures.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    panic!("in vain, {TRIES_MAX} times");
}

impl Done {
    /// Each signup and each sale told somebody; opening a payment tells nobody.
    pub(super) fn events(&self) -> usize {
        2 * self.people
    }

    /// Partners, XP, money and notifications: exactly what was asked for, once.
    pub(super) async fn assert_each_took_effect_once(&self, pair: &Pair) {
        let people = i64::try_from(self.people).expect("not that many");
        assert!(people > 0, "nothing was tried");
        let mut clients = pair.clients.clone();
        let root = clients.partner(&self.root.partner_id).await;
        assert_eq!((root.direct_referrals, root.network_size, root.xp), (people, people, 35 * people));
        assert_eq!(clients.balance(&root.partner_id).await, 11_700_000 * people);
        assert_books_balance(&mut clients).await;
        let sql = pair.referral_sql(Role::Owner).await;
        assert_tree_is_right(&sql).await;
        for (query, expected) in [
            ("SELECT count(*) FROM partners", people + 1),
            ("SELECT count(*) FROM payments", people),
            ("SELECT count(*) FROM ledger_transactions", people),
            ("SELECT count(*) FROM requests", 3 * people + 1),
            ("SELECT count(*) FROM audit_events WHERE request_id IS NOT NULL", 3 * people + 1),
        ] {
            assert_eq!(number(&sql, query).await, expected, "{query}");
        }

        wait::until("the outbox to be settled", async || {
            (number(&sql, "SELECT count(*) FROM outbox").await == 0).then_some(())
        })
        .await;
        let notify = pair.notify_sql(Role::Owner).await;
        wait::until("every notification to be delivered", async || {
            let open = "SELECT count(*) FROM notifications WHERE state <> 'DELIVERED'";
            (number(&notify, open).await == 0).then_some(())
        })
        .await;
        // Of the signup the root hears, and of each level; of the sale the buyer and the root.
        let levels = i64::from(root.level) - 1;
        assert_eq!(number(&notify, "SELECT count(*) FROM inbox").await, 2 * people);
        assert_eq!(number(&notify, "SELECT count(*) FROM notifications").await, 3 * people + levels);
    }
}
