//! Twice as much as there can be.

use p2phub_tests::pair::Pair;
use tonic::Code;

use super::{
    Sizes, connections,
    load::{calls, open},
    network::{Payments, confirm},
    writes::of,
};
use crate::{table::row, usage::resident_mib};

pub(super) async fn run(pair: &Pair, sizes: Sizes, most: f64) {
    let clients = connections(pair);
    let rate = most * 2.0;
    let payments = Payments::open(pair, calls(rate, sizes.duration())).await;
    let referral = pair.referral.as_ref().expect("referral-svc runs");
    row("resident memory before", resident_mib(referral), "MiB");
    let came = open(rate, sizes.duration(), |number| confirm(of(&clients, number), payments.take())).await;
    let unlike = came.refused.iter().find(|status| status.code() != Code::ResourceExhausted);
    assert!(unlike.is_none(), "refused otherwise than by overload: {unlike:?}");
    row("confirmations asked for", rate, "sales/s");
    row("confirmations accepted", came.per_second(), "sales/s");
    row("share of the maximum", 100.0 * came.per_second() / most, "%");
    row("refused", came.refused.len() as f64, "");
    came.rows("of those accepted");
    row("resident memory after", resident_mib(referral), "MiB");
}
