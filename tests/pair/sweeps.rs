//! What time brings about: a row that can't be done holds up no other, is told of once, and is done after the repair.

use p2phub_tests::{builders::request_id, pair::Options, postgres::Role, prometheus::Scrape, wait};
use serde_json::json;

use crate::{PAIR_PROCESS, concurrency::assert_books_balance, payments::plan::plan_file};

const AGE: &str = "p2phub_sweep_oldest_age_seconds";
const RELEASES: [(&str, &str); 1] = [("sweep", "ReleaseCommissions")];

#[tokio::test(flavor = "multi_thread")]
async fn a_commission_that_cannot_be_released_holds_up_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan_file(&directory, &json!({ "version": 2, "commission_holding_days": 10 }));
    let plan = plan.to_str().expect("a path");
    let options = Options::default().processes(PAIR_PROCESS).variable("LOG_FORMAT", "json").variable("PLAN_FILE", plan);
    let pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain(&request_id(), 4).await;
    let [top, middle, parent] = [&chain[0].partner_id, &chain[1].partner_id, &chain[2].partner_id];
    let mut sales = Vec::new();
    for _ in 0..2 {
        sales.push(clients.buy_pro(&chain[3].partner_id).await.0.payment_id);
    }
    let held = clients.balances(middle).await[1];

    // Both of one earner's commissions are broken, and all six have been due for an hour.
    let sql = pair.referral_sql(Role::Superuser).await;
    let broken = format!(
        "SET session_replication_role = replica;
         UPDATE accounts SET balance = 0 WHERE purpose = 'PARTNER_PENDING' AND owner_id = '{middle}';
         UPDATE commissions SET release_time = now() - interval '1 hour'"
    );
    sql.batch_execute(&broken).await.expect("a change past the triggers");
    for released in [top, parent] {
        wait::until("the release", async || (clients.balances(released).await[1] == 0).then_some(())).await;
        assert!(clients.balance(released).await > 0);
    }
    assert_eq!(clients.balance(middle).await, 0);
    let http = pair.referral.as_ref().expect("referral-svc runs").http;
    let age = wait::until("the age of the oldest", async || {
        Scrape::of(http).await.value(AGE, &RELEASES).filter(|age| *age > 0.0)
    })
    .await;
    assert!((3600.0..3700.0).contains(&age), "{age}");

    // Whoever becomes due later is released too, and the broken ones are told of once, however often they are tried.
    let later = clients.buy_pro(middle).await.0.payment_id;
    let due = format!("UPDATE commissions SET release_time = now() WHERE payment_id = '{later}' AND level = 1");
    sql.batch_execute(&due).await.expect("a change past the triggers");
    wait::until("the later release", async || (clients.balances(top).await[1] == 0).then_some(())).await;
    let failures = || -> Vec<String> {
        let log = pair.referral.as_ref().expect("referral-svc runs").log();
        log.lines().filter(|line| line.contains("a command can't be")).map(str::to_owned).collect()
    };
    let again = async || (failures().len() >= 4).then(failures);
    let failures = wait::until("another try of both", again).await;
    let errors: Vec<_> = failures.iter().filter(|line| line.contains("\"ERROR\"")).collect();
    assert_eq!(errors.len(), 2, "{failures:#?}");
    for sale in &sales {
        assert!(errors.iter().any(|line| line.contains(&format!("\"about\":\"{sale}.2\""))), "{sale}: {errors:#?}");
    }

    let repaired = format!(
        "UPDATE accounts SET balance = balance + {held} WHERE purpose = 'PARTNER_PENDING' AND owner_id = '{middle}'"
    );
    sql.batch_execute(&repaired).await.expect("a change past the triggers");
    wait::until("the release after the repair", async || (clients.balance(middle).await == held).then_some(())).await;
    wait::until("nothing overdue", async || (Scrape::of(http).await.value(AGE, &RELEASES) == Some(0.0)).then_some(()))
        .await;
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}
