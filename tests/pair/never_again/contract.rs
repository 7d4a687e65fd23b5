//! What the contract and the schemas leave no room for: floats, and a price that the client sets.

use std::collections::{HashMap, HashSet};

use p2phub_proto::{
    FILE_DESCRIPTOR_SET,
    referral::v1::{CreatePaymentRequest, Product},
};
use p2phub_tests::{
    builders::{request_id, usdt},
    clients::channel,
    pair::{Options, Pair},
    postgres::Role,
};
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

/// Every message of the contract by its full name, nested ones too.
fn messages() -> HashMap<String, DescriptorProto> {
    fn walk(prefix: &str, message: &DescriptorProto, found: &mut HashMap<String, DescriptorProto>) {
        let name = format!("{prefix}.{}", message.name());
        for nested in &message.nested_type {
            walk(&name, nested, found);
        }
        found.insert(name, message.clone());
    }
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors").file;
    let mut found = HashMap::new();
    for file in &files {
        for message in &file.message_type {
            walk(&format!(".{}", file.package()), message, &mut found);
        }
    }
    found
}

/// The fields that a message reaches, as (message, field, type).
fn reached(from: &str) -> Vec<(String, String, Type)> {
    let messages = messages();
    let (mut seen, mut open, mut fields) = (HashSet::new(), vec![from.to_owned()], Vec::new());
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for field in &messages[&name].field {
            fields.push((name.clone(), field.name().to_owned(), field.r#type()));
            if field.r#type() == Type::Message {
                open.push(field.type_name().to_owned());
            }
        }
    }
    fields
}

#[test]
fn no_message_has_room_for_float_money() {
    let messages = messages();
    let ours = messages.iter().filter(|(name, _)| name.starts_with(".p2phub."));
    let fields: Vec<_> =
        ours.flat_map(|(name, message)| message.field.iter().map(move |field| (name, field))).collect();
    assert!(fields.len() > 100, "the descriptors are not the contract's: {} fields", fields.len());
    for (name, field) in fields {
        assert!(!matches!(field.r#type(), Type::Float | Type::Double), "{name}.{}", field.name());
    }
    let amount = reached(".p2phub.referral.v1.Amount");
    let types: Vec<_> = amount.iter().map(|(_, field, kind)| (field.as_str(), *kind)).collect();
    assert_eq!(types, [("asset", Type::String), ("minor_units", Type::Int64)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_has_room_for_float_money() {
    let pair = Pair::start().await;
    for client in [pair.referral_sql(Role::Owner).await, pair.notify_sql(Role::Owner).await] {
        let sql = "SELECT table_name::text, column_name::text, udt_name::text FROM information_schema.columns
            WHERE table_schema = 'public'";
        let columns = client.query(sql, &[]).await.expect("columns");
        assert!(columns.len() > 20, "only {} columns", columns.len());
        for row in &columns {
            let (table, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let kind = kind.trim_start_matches('_');
            assert!(!["float4", "float8", "money", "numeric"].contains(&kind), "{table}.{column} is {kind}");
            let is_money = ["amount", "balance", "balance_after", "base"].contains(&column.as_str());
            assert!(!is_money || kind == "int8", "{table}.{column} is {kind}");
        }
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_can_set_a_price() {
    // Nothing that opens or confirms a payment can say how much.
    for request in ["CreatePaymentRequest", "SubmitPaymentRequest", "ConfirmPaymentRequest"] {
        for (message, field, kind) in reached(&format!(".p2phub.referral.v1.{request}")) {
            assert!(matches!(kind, Type::String | Type::Enum), "{message}.{field} is {kind:?}");
            assert!(!field.contains("amount") && !field.contains("price"), "{message}.{field}");
        }
    }

    // And who tries all the same, with fields that the message does not have, pays the plan's price.
    #[derive(Clone, PartialEq, Message)]
    struct Smuggled {
        #[prost(string, tag = "1")]
        request_id: String,
        #[prost(string, tag = "2")]
        partner_id: String,
        #[prost(enumeration = "Product", tag = "3")]
        product: i32,
        #[prost(string, tag = "4")]
        method: String,
        #[prost(message, optional, tag = "5")]
        amount: Option<p2phub_proto::referral::v1::Amount>,
        #[prost(int64, tag = "6")]
        price: i64,
    }
    let pair = Options::default().start_alone().await;
    let buyer = pair.clients.clone().register("buyer", "").await;
    let smuggled = Smuggled {
        request_id: request_id(),
        partner_id: buyer.partner_id.clone(),
        product: Product::ProMonthly.into(),
        method: "trusted".to_owned(),
        amount: Some(usdt(1)),
        price: 1,
    };
    let honest = CreatePaymentRequest::decode(smuggled.encode_to_vec().as_slice()).expect("a request");
    assert_eq!(honest.partner_id, buyer.partner_id);
    let mut grpc = tonic::client::Grpc::new(channel(pair.referral_address));
    grpc.ready().await.expect("a connection");
    let path = http::uri::PathAndQuery::from_static("/p2phub.referral.v1.PaymentService/CreatePayment");
    let codec = tonic_prost::ProstCodec::<Smuggled, p2phub_proto::referral::v1::CreatePaymentResponse>::default();
    let answer = grpc.unary(tonic::Request::new(smuggled), path, codec).await.expect("a payment").into_inner();
    assert_eq!(answer.payment.expect("a payment").amount, Some(usdt(39_000_000)));
    pair.finish().await;
}
