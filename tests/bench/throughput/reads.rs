//! Reads: how many a second, and how long one takes beside writes.

use p2phub_proto::referral::v1::{
    GetBalanceRequest, GetNetworkRequest, GetPartnerRankRequest, GetPartnerRequest, ListReferralsRequest,
    ListTopPartnersRequest, get_partner_request::Key,
};
use p2phub_tests::{builders::ASSET, clients::Clients, pair::Pair, postgres::Role};
use tonic::Status;

use super::{
    Sizes, connections,
    load::{calls, closed, open},
    network::{Payments, confirm},
    writes::of,
};
use crate::table::row;

const CALLERS: usize = 64;
const PER_SECOND: f64 = 1000.0;
/// Partners that are looked at.
const PARTNERS: i64 = 5000;

#[derive(Clone, Copy)]
enum Read {
    Partner,
    Balance,
    Network,
    Referrals,
    TopPartners,
    Rank,
}

impl Read {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Partner, "GetPartner"),
        (Self::Balance, "GetBalance"),
        (Self::Network, "GetNetwork"),
        (Self::Referrals, "ListReferrals"),
        (Self::TopPartners, "ListTopPartners"),
        (Self::Rank, "GetPartnerRank"),
    ];

    async fn ask(self, mut clients: Clients, partner_id: String) -> Result<(), Status> {
        match self {
            Self::Partner => {
                let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id)) };
                clients.partners.get_partner(request).await.map(drop)
            }
            Self::Balance => {
                let request = GetBalanceRequest { partner_id, asset: ASSET.to_owned(), ..Default::default() };
                clients.ledger.get_balance(request).await.map(drop)
            }
            Self::Network => {
                let request = GetNetworkRequest { partner_id, ..Default::default() };
                clients.partners.get_network(request).await.map(drop)
            }
            Self::Referrals => {
                let request = ListReferralsRequest { partner_id, level: 1, page_size: 20, ..Default::default() };
                clients.partners.list_referrals(request).await.map(drop)
            }
            Self::TopPartners => {
                let request = ListTopPartnersRequest { page_size: 20, ..Default::default() };
                clients.leaderboard.list_top_partners(request).await.map(drop)
            }
            Self::Rank => {
                let request = GetPartnerRankRequest { partner_id };
                clients.leaderboard.get_partner_rank(request).await.map(drop)
            }
        }
    }
}

pub(super) async fn run(pair: &Pair, sizes: Sizes, most: f64) {
    let clients = connections(pair);
    let sql = pair.referral_sql(Role::Superuser).await;
    let query = "SELECT partner_id::text FROM partners ORDER BY hashtext(partner_id::text) LIMIT $1";
    let partners: Vec<String> =
        sql.query(query, &[&PARTNERS]).await.expect("partners").iter().map(|row| row.get(0)).collect();
    let partner = |number: usize| partners[number % partners.len()].clone();
    for (read, name) in Read::ALL {
        let number = std::cell::Cell::new(0);
        let call = |caller| {
            number.set(number.get() + 1);
            read.ask(of(&clients, caller), partner(number.get()))
        };
        let came = closed(CALLERS, sizes.duration() / 2, call).await.all();
        row(format!("{name}, {CALLERS} callers"), came.per_second(), "calls/s");
    }
    let rate = most / 2.0;
    for (read, name) in Read::ALL {
        let payments = Payments::open(pair, calls(rate, sizes.duration())).await;
        let reading = open(PER_SECOND, sizes.duration(), |number| read.ask(of(&clients, number), partner(number)));
        let writing = open(rate, sizes.duration(), |number| confirm(of(&clients, number), payments.take()));
        let (reading, writing) = tokio::join!(reading, writing);
        reading.all().rows(&format!("{name} at {PER_SECOND}/s beside confirmations"));
        writing.all().rows("  those confirmations");
    }
}
