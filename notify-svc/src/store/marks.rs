//! Table `addresses`, as operators see it: what is known of an address, and forgetting it.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable, Selectable, SelectableHelper, delete,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::channel::Channel;
use uuid::Uuid;

use super::schema::addresses;

/// What is known of an address.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = addresses)]
pub(crate) struct AddressRow {
    pub(crate) channel: String,
    pub(crate) address: String,
    pub(crate) reason: String,
    pub(crate) moved_to: Option<String>,
    pub(crate) mark_time: DateTime<Utc>,
    pub(crate) notification_id: Uuid,
}

/// What is known of it, if anything.
pub(crate) async fn get(
    connection: &mut AsyncPgConnection,
    channel: Channel,
    address: &str,
) -> QueryResult<Option<AddressRow>> {
    addresses::table
        .find((channel.as_str(), address))
        .select(AddressRow::as_select())
        .first(connection)
        .await
        .optional()
}

/// Forgets it; returns what was known.
pub(crate) async fn reset(
    connection: &mut AsyncPgConnection,
    channel: Channel,
    address: &str,
) -> QueryResult<Option<AddressRow>> {
    delete(addresses::table.filter(addresses::channel.eq(channel.as_str())).filter(addresses::address.eq(address)))
        .returning(AddressRow::as_returning())
        .get_result(connection)
        .await
        .optional()
}
