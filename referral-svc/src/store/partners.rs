//! Table `partners`: identities and the tree.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, Queryable, QueryableByName,
    Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    command::PartnerView,
    id::PartnerId,
    partner::{Contact, Partner, Profile, ReferralCode},
    state::Attached,
};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::{partners, standings},
    sql::{Sql, array_literal, uuids},
    standings::StandingRow,
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = partners)]
struct PartnerRow {
    partner_id: Uuid,
    external_id: String,
    referral_code: String,
    referrer_id: Option<Uuid>,
    depth: i32,
    lineage: Vec<Uuid>,
    username: String,
    first_name: String,
    last_name: String,
    locale: String,
    contacts: serde_json::Value,
    create_time: DateTime<Utc>,
    attach_time: Option<DateTime<Utc>>,
}

impl TryFrom<PartnerRow> for Partner {
    type Error = diesel::result::Error;

    fn try_from(row: PartnerRow) -> Result<Self> {
        let contacts: Vec<Contact> =
            serde_json::from_value(row.contacts).map_err(|_| impossible("contacts of another shape"))?;
        Ok(Self {
            partner_id: row.partner_id.into(),
            external_id: row.external_id,
            referral_code: ReferralCode::from_input(&row.referral_code),
            referrer_id: row.referrer_id.map(Into::into),
            depth: row.depth,
            lineage: row.lineage.into_iter().map(Into::into).collect(),
            profile: Profile {
                username: row.username,
                first_name: row.first_name,
                last_name: row.last_name,
                locale: row.locale,
                contacts,
            },
            create_time: row.create_time,
            attach_time: row.attach_time,
        })
    }
}

fn views(rows: Vec<(PartnerRow, StandingRow)>) -> Result<Vec<PartnerView>> {
    rows.into_iter()
        .map(|(partner, standing)| Ok(PartnerView { partner: partner.try_into()?, standing: standing.try_into()? }))
        .collect()
}

/// Locks rows that are about to change.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<()> {
    Sql::new("SELECT 1 FROM partners WHERE partner_id = ANY ({}) ORDER BY partner_id FOR NO KEY UPDATE")
        .bind::<Array<SqlUuid>, _>(ids)
        .execute(transaction.connection())
        .await?;
    Ok(())
}

/// Every partner that any of the keys names.
pub(crate) async fn load(
    transaction: &mut Transaction,
    ids: &[Uuid],
    external_ids: &[&str],
    codes: &[&str],
) -> Result<Vec<Partner>> {
    let rows: Vec<PartnerRow> = partners::table
        .filter(
            partners::partner_id
                .eq_any(ids)
                .or(partners::external_id.eq_any(external_ids))
                .or(partners::referral_code.eq_any(codes)),
        )
        .select(PartnerRow::as_select())
        .load(transaction.connection())
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(QueryableByName)]
struct Above {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
}

/// Everyone above a partner, up to the root.
pub(crate) async fn above(transaction: &mut Transaction, partner_id: PartnerId) -> Result<HashSet<PartnerId>> {
    let rows: Vec<Above> = Sql::new(
        "WITH RECURSIVE above AS (
             SELECT referrer_id AS partner_id FROM partners WHERE partner_id = {}
             UNION SELECT p.referrer_id FROM above a JOIN partners p USING (partner_id)
         )
         SELECT partner_id FROM above WHERE partner_id IS NOT NULL",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .load(transaction.connection())
    .await?;
    Ok(rows.into_iter().map(|row| row.partner_id.into()).collect())
}

fn contacts(profile: &Profile) -> serde_json::Value {
    serde_json::to_value(&profile.contacts).unwrap_or_default()
}

pub(crate) async fn insert(transaction: &mut Transaction, partners: &[&Partner]) -> Result<()> {
    let column = |text: fn(&Partner) -> &str| partners.iter().map(|partner| text(partner)).collect::<Vec<_>>();
    Sql::new(
        "INSERT INTO partners (partner_id, external_id, referral_code, referrer_id, depth, lineage, username, first_name,
             last_name, locale, contacts, create_time)
         SELECT partner_id, external_id, referral_code, referrer_id, depth, lineage::uuid[], username, first_name,
             last_name, locale, contacts, create_time
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}) AS n (partner_id, external_id, referral_code,
             referrer_id, depth, lineage, username, first_name, last_name, locale, contacts, create_time)",
    )
    .bind::<Array<SqlUuid>, _>(uuids(partners.iter().map(|partner| partner.partner_id)))
    .bind::<Array<Text>, _>(column(|partner| &partner.external_id))
    .bind::<Array<Text>, _>(column(|partner| partner.referral_code.as_str()))
    .bind::<Array<Nullable<SqlUuid>>, _>(
        partners.iter().map(|partner| partner.referrer_id.map(Uuid::from)).collect::<Vec<_>>(),
    )
    .bind::<Array<Integer>, _>(partners.iter().map(|partner| partner.depth).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(partners.iter().map(|partner| array_literal(&partner.lineage)).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|partner| &partner.profile.username))
    .bind::<Array<Text>, _>(column(|partner| &partner.profile.first_name))
    .bind::<Array<Text>, _>(column(|partner| &partner.profile.last_name))
    .bind::<Array<Text>, _>(column(|partner| &partner.profile.locale))
    .bind::<Array<Jsonb>, _>(partners.iter().map(|partner| contacts(&partner.profile)).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(partners.iter().map(|partner| partner.create_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

pub(crate) async fn update_profiles(transaction: &mut Transaction, partners: &[&Partner]) -> Result<()> {
    let column = |text: fn(&Profile) -> &str| partners.iter().map(|partner| text(&partner.profile)).collect::<Vec<_>>();
    Sql::new(
        "UPDATE partners p SET username = n.username, first_name = n.first_name, last_name = n.last_name,
             locale = n.locale, contacts = n.contacts
         FROM unnest({}, {}, {}, {}, {}, {}) AS n (partner_id, username, first_name, last_name, locale, contacts)
         WHERE p.partner_id = n.partner_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(partners.iter().map(|partner| partner.partner_id)))
    .bind::<Array<Text>, _>(column(|profile| &profile.username))
    .bind::<Array<Text>, _>(column(|profile| &profile.first_name))
    .bind::<Array<Text>, _>(column(|profile| &profile.last_name))
    .bind::<Array<Text>, _>(column(|profile| &profile.locale))
    .bind::<Array<Jsonb>, _>(partners.iter().map(|partner| contacts(&partner.profile)).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Moves a partner and everyone below, in one statement: the tree is never half moved.
pub(crate) async fn attach(transaction: &mut Transaction, attached: &Attached) -> Result<()> {
    let partner = &attached.partner;
    Sql::new(
        "WITH RECURSIVE below AS (
             SELECT partner_id, 0 AS distance FROM partners WHERE partner_id = {}
             UNION ALL
             SELECT c.partner_id, b.distance + 1 FROM below b JOIN partners c ON c.referrer_id = b.partner_id
         )
         UPDATE partners p
         SET referrer_id = CASE b.distance WHEN 0 THEN {} ELSE p.referrer_id END,
             attach_time = CASE b.distance WHEN 0 THEN {} ELSE p.attach_time END,
             depth = p.depth + {},
             lineage = (p.lineage[1:least(b.distance, 9)] || {})[1:9]
         FROM below b WHERE p.partner_id = b.partner_id",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner.partner_id))
    .bind::<Nullable<SqlUuid>, _>(partner.referrer_id.map(Uuid::from))
    .bind::<Nullable<Timestamptz>, _>(partner.attach_time)
    .bind::<Integer, _>(attached.deeper)
    .bind::<Array<SqlUuid>, _>(uuids(partner.lineage.iter().copied()))
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// What names one partner.
pub(crate) enum Key {
    Id(PartnerId),
    ExternalId(String),
    Code(ReferralCode),
}

pub(crate) async fn find(connection: &mut AsyncPgConnection, key: &Key) -> Result<Option<PartnerView>> {
    let query = partners::table
        .inner_join(standings::table.on(standings::partner_id.eq(partners::partner_id)))
        .select((PartnerRow::as_select(), StandingRow::as_select()))
        .into_boxed();
    let query = match key {
        Key::Id(id) => query.filter(partners::partner_id.eq(Uuid::from(*id))),
        Key::ExternalId(external_id) => query.filter(partners::external_id.eq(external_id)),
        Key::Code(code) => query.filter(partners::referral_code.eq(code.as_str())),
    };
    let row = query.first(connection).await.optional()?;
    Ok(views(row.into_iter().collect())?.pop())
}

/// Those of `ids` that exist, in any order.
pub(crate) async fn find_all(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> Result<Vec<PartnerView>> {
    let rows = partners::table
        .inner_join(standings::table.on(standings::partner_id.eq(partners::partner_id)))
        .select((PartnerRow::as_select(), StandingRow::as_select()))
        .filter(partners::partner_id.eq_any(ids))
        .load(connection)
        .await?;
    views(rows)
}

/// The IDs at `level` below a partner, after `after`, ascending.
pub(crate) async fn at_level(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    level: i32,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>> {
    let rows: Vec<Above> = Sql::new(
        "WITH RECURSIVE below AS (
             SELECT partner_id, 0 AS distance FROM partners WHERE partner_id = {}
             UNION ALL
             SELECT c.partner_id, b.distance + 1 FROM below b JOIN partners c ON c.referrer_id = b.partner_id
             WHERE b.distance < {} - 1
         )
         SELECT c.partner_id FROM below b JOIN partners c ON c.referrer_id = b.partner_id
         WHERE b.distance = {} - 1 AND c.partner_id > {}
         ORDER BY c.partner_id LIMIT {}",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Integer, _>(level)
    .bind::<Integer, _>(level)
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.partner_id).collect())
}
