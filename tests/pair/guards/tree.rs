//! The tree stays a tree and no lineage is stale, whatever runs at once.

use p2phub_tests::{pair::Pair, postgres::Role, wait};

use super::{BOTH, CHECK, DENIED, FOREIGN_KEY, Fixture, UNIQUE, fault};

/// A new partner `{new}`: its referrer in SQL, depth, lineage.
fn child(referrer: &str, depth: i32, lineage: &str) -> String {
    format!(
        "INSERT INTO public.partners VALUES ('{{new}}', 'raw', 'P2P-RAWRAW01', {referrer}, {depth}, '{{{lineage}}}',
            '', '', '', '', '[]', now())"
    )
}

/// Puts a partner elsewhere.
fn placed(partner: &str, referrer: &str, depth: i32, lineage: &str) -> String {
    format!(
        "UPDATE public.partners SET referrer_id = {referrer}, depth = {depth}, lineage = '{{{lineage}}}'
         WHERE partner_id = '{partner}'"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_takes_no_cycle_no_second_referrer_and_no_stale_lineage() {
    let fixture = Fixture::start().await;
    let client = fixture.pair.referral_sql(Role::Service).await;
    for sound in [
        child("'{third}'", 3, "{third},{second},{first}"),
        child("NULL", 0, ""),
        // With the descendants in one statement, as the service does it.
        "UPDATE partners SET referrer_id = coalesce(referrer_id, '{first}'), depth = depth + 1,
            lineage = lineage || '{first}'::uuid WHERE partner_id IN ('{lone}', '{below}')"
            .to_owned(),
    ] {
        client.batch_execute("BEGIN").await.expect("a transaction");
        client.batch_execute(&fixture.fill(&sound)).await.expect("a sound change: the cases below differ from it");
        client.batch_execute("ROLLBACK").await.expect("the transaction's end");
    }

    let cases = [
        // Cycles: of one, of two, of three, and of two partners moved at once.
        (placed("{lone}", "'{lone}'", 1, "{lone}"), CHECK, "partners_tree"),
        (placed("{lone}", "'{below}'", 2, "{below},{lone}"), CHECK, "partners_tree"),
        (placed("{first}", "'{third}'", 3, "{third},{second},{first}"), CHECK, "partners_tree"),
        (child("'{new}'", 1, "{new}"), CHECK, "partners_tree"),
        (
            "UPDATE partners SET depth = 1,
                referrer_id = CASE partner_id WHEN '{first}' THEN '{lone}'::uuid ELSE '{first}' END,
                lineage = ARRAY[CASE partner_id WHEN '{first}' THEN '{lone}'::uuid ELSE '{first}' END]
             WHERE partner_id IN ('{first}', '{lone}')"
                .to_owned(),
            CHECK,
            "partners_tree",
        ),
        // The first referrer stays.
        (placed("{third}", "'{first}'", 1, "{first}"), CHECK, "partners_first_referrer"),
        (placed("{third}", "NULL", 0, ""), CHECK, "partners_first_referrer"),
        // Depth and lineage follow the referrer's, and descendants come along.
        (placed("{lone}", "'{third}'", 3, "{third},{second},{first}"), CHECK, "partners_tree"),
        (placed("{third}", "'{second}'", 3, "{second},{first},{first}"), CHECK, "partners_tree"),
        (placed("{third}", "'{second}'", 2, "{second},{lone}"), CHECK, "partners_tree"),
        (child("'{third}'", 2, "{third},{second}"), CHECK, "partners_tree"),
        (child("'{third}'", 3, "{third},{first},{second}"), CHECK, "partners_tree"),
        (child("'{third}'", 3, "{third},{second}"), CHECK, "partners_lineage_shape"),
        (child("'{third}'", 0, ""), CHECK, "partners_lineage_shape"),
        (child("NULL", 1, "{first}"), CHECK, "partners_lineage_shape"),
        (
            child("'00000000-0000-4000-8000-00000000dead'", 1, "00000000-0000-4000-8000-00000000dead"),
            FOREIGN_KEY,
            "partners_referrer_id_fkey",
        ),
        // A snapshot older than the tree lock proves nothing.
        (
            format!(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; {}",
                placed("{below}", "'{lone}'", 2, "{lone},{lone}")
            ),
            CHECK,
            "partners_tree",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(sql, state, constraint)| (sql.as_str(), *state, *constraint)).collect();
    fixture.refuses(&BOTH, &cases).await;

    let taken =
        "INSERT INTO partners SELECT '{new}', external_id, 'P2P-RAWRAW01', NULL, 0, '{}', '', '', '', '', '[]', now()
        FROM partners LIMIT 1";
    let code = "INSERT INTO partners SELECT '{new}', 'raw', referral_code, NULL, 0, '{}', '', '', '', '', '[]', now()
        FROM partners LIMIT 1";
    let unique = [(taken, UNIQUE, "partners_external_id_key"), (code, UNIQUE, "partners_referral_code_key")];
    fixture.refuses(&BOTH, &unique).await;
    fixture.refuses(&[Role::Service], &[("UPDATE partners SET create_time = now()", DENIED, "")]).await;
    fixture.pair.finish().await;
}

/// Runs `first` and, before its transaction ends, `second`, which has to wait for it; gives SQLSTATE and constraint
/// of the second once the first has committed.
async fn meet(pair: &Pair, first: String, second: String) -> (String, String) {
    let (one, two) = (pair.referral_sql(Role::Service).await, pair.referral_sql(Role::Service).await);
    let watch = pair.referral_sql(Role::Superuser).await;
    one.batch_execute("BEGIN").await.expect("a transaction");
    one.batch_execute(&first).await.expect("the first change");
    let waiting = tokio::spawn(async move { two.batch_execute(&format!("BEGIN; {second}; COMMIT")).await });
    wait::until("the second to wait for the first", async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (watch.query_one(sql, &[]).await.expect("a row").get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    one.batch_execute("COMMIT").await.expect("the first commit");
    let tried = waiting.await.expect("no panic");
    let (state, constraint) = fault(&tried);
    (state.to_owned(), constraint.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_changes_that_together_make_a_cycle_are_not_both_taken() {
    let fixture = Fixture::start().await;
    let roots = fixture.pair.clients.clone().chain("root", 1).await;
    let root = roots[0].partner_id.as_str();
    let first = fixture.fill(&placed(root, "'{below}'", 2, "{below},{lone}"));
    // Sound on its own: the root had nobody above it when this was written.
    let second = fixture.fill(&format!(
        "UPDATE partners SET referrer_id = coalesce(referrer_id, '{root}'), depth = depth + 1,
            lineage = lineage || '{root}'::uuid WHERE partner_id IN ('{{lone}}', '{{below}}')"
    ));
    let (state, constraint) = meet(&fixture.pair, first, second).await;
    assert_eq!((state.as_str(), constraint.as_str()), (CHECK, "partners_tree"));
    fixture.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signup_below_one_who_just_moved_is_not_taken_with_the_old_lineage() {
    let fixture = Fixture::start().await;
    let moving = fixture.fill(
        "UPDATE partners SET referrer_id = coalesce(referrer_id, '{first}'), depth = depth + 1,
            lineage = lineage || '{first}'::uuid WHERE partner_id IN ('{lone}', '{below}')",
    );
    let signup = fixture.fill(&child("'{below}'", 2, "{below},{lone}"));

    // On a snapshot older than the move the old lineage looks right.
    let old = fixture.pair.referral_sql(Role::Service).await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM partners").await.expect("a snapshot");
    let (state, constraint) = meet(&fixture.pair, moving, signup.clone()).await;
    assert_eq!((state.as_str(), constraint.as_str()), (CHECK, "partners_tree"));
    let tried = old.batch_execute(&signup).await;
    assert_eq!(fault(&tried), (CHECK, "partners_tree"), "{tried:?}");
    fixture.pair.finish().await;
}
