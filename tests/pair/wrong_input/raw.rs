//! Calls by path and bytes, and messages written field by field after the descriptors: for what no client would send.

use std::{collections::HashMap, time::Duration};

use http::uri::PathAndQuery;
use p2phub_tests::{clients::channel, raw::Bytes};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type,
};
use tonic::{Request, Response, Status, client::Grpc, transport::Channel};

/// No call may take longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The method whose answer has no end.
const ENDLESS: &str = "/WatchDeliveries";

/// Calls a method that takes one message.
pub(crate) async fn call(channel: &Channel, path: &str, request: Request<Vec<u8>>) -> Result<Response<()>, Status> {
    let exchange = async {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.expect("a connection");
        let path = PathAndQuery::try_from(path).expect("a path");
        let answer = grpc.server_streaming(request, path.clone(), Bytes).await?;
        let (metadata, mut messages, extensions) = answer.into_parts();
        // One that watches goes on until somebody ends it.
        while !path.as_str().ends_with(ENDLESS) && messages.message().await?.is_some() {}
        Ok(Response::from_parts(metadata, (), extensions))
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| panic!("no answer in {DEADLINE:?}: {path}"))
}

/// A method of the contract that takes one message.
pub(crate) struct Rpc {
    pub(crate) path: String,
    pub(crate) domain: &'static str,
    pub(crate) input: String,
}

/// The contract as its descriptors have it.
pub(crate) struct Contract {
    pub(crate) rpcs: Vec<Rpc>,
    messages: HashMap<String, DescriptorProto>,
}

impl Contract {
    pub(crate) fn read() -> Self {
        let set = FileDescriptorSet::decode(p2phub_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut contract = Self { rpcs: Vec::new(), messages: HashMap::new() };
        for file in set.file {
            let package = file.package().to_owned();
            for message in file.message_type.clone() {
                // A map's entries.
                for entry in message.nested_type.clone() {
                    contract.messages.insert(format!(".{package}.{}.{}", message.name(), entry.name()), entry);
                }
                contract.messages.insert(format!(".{package}.{}", message.name()), message);
            }
            for service in &file.service {
                let methods = service.method.iter().filter(|method| !method.client_streaming());
                contract.rpcs.extend(methods.map(|method| rpc(&package, service.name(), method)));
            }
        }
        contract
    }

    pub(crate) fn fields(&self, message: &str) -> &[FieldDescriptorProto] {
        &self.messages[message].field
    }
}

fn rpc(package: &str, service: &str, method: &MethodDescriptorProto) -> Rpc {
    Rpc {
        path: format!("/{package}.{service}/{}", method.name()),
        domain: if package.contains("referral") { "referral.p2phub" } else { "notify.p2phub" },
        input: method.input_type().to_owned(),
    }
}

/// Where a contract's method is served.
pub(crate) struct Channels {
    referral: Channel,
    notify: Channel,
}

impl Channels {
    pub(crate) fn of(pair: &p2phub_tests::pair::Pair) -> Self {
        Self { referral: channel(pair.referral_address), notify: channel(pair.notify_address) }
    }

    pub(crate) fn to(&self, domain: &str) -> &Channel {
        if domain.starts_with("referral") { &self.referral } else { &self.notify }
    }
}

/// A field's value, before it is bytes.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Message(Vec<u8>),
}

/// One field as it stands in a message. Written behind others, it replaces the same field and its oneof's others.
pub(crate) fn field(descriptor: &FieldDescriptorProto, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let tag = u32::try_from(descriptor.number()).expect("a tag");
    match value {
        Value::Number(number) => {
            encode_key(tag, WireType::Varint, &mut bytes);
            // As protobuf has it: negative numbers are ten bytes long.
            encode_varint(number.cast_unsigned(), &mut bytes);
        }
        Value::Text(text) => length_delimited(tag, text.as_bytes(), &mut bytes),
        Value::Message(message) => length_delimited(tag, message, &mut bytes),
    }
    bytes
}

pub(crate) fn length_delimited(tag: u32, content: &[u8], bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(u64::try_from(content.len()).expect("a length"), bytes);
    bytes.extend_from_slice(content);
}

pub(crate) fn is_message(descriptor: &FieldDescriptorProto) -> bool {
    descriptor.r#type() == Type::Message
}
