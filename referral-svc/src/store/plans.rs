//! Table `plans`: which content each plan version has, for ever.

use diesel::{
    QueryableByName,
    sql_types::{Integer, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::plan::Plan;

use super::{Result, sql::Sql};

#[derive(QueryableByName)]
struct Content {
    #[diesel(sql_type = Text)]
    content: String,
}

/// Notes the plan's version, or finds it noted: false if its content is another.
pub(crate) async fn note(connection: &mut AsyncPgConnection, plan: &Plan) -> Result<bool> {
    Sql::new("INSERT INTO plans (version, content) VALUES ({}, {}) ON CONFLICT DO NOTHING")
        .bind::<Integer, _>(plan.version())
        .bind::<Text, _>(plan.canonical_json())
        .execute(connection)
        .await?;
    Ok(content(connection, plan.version()).await? == plan.canonical_json())
}

/// The content of a version that was noted.
pub(crate) async fn content(connection: &mut AsyncPgConnection, version: i32) -> Result<String> {
    let noted: Content = Sql::new("SELECT content FROM plans WHERE version = {}")
        .bind::<Integer, _>(version)
        .get_result(connection)
        .await?;
    Ok(noted.content)
}
