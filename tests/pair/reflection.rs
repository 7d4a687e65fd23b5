//! Reflection, in both versions: every service is listed, and every descriptor resolves.

use std::collections::{BTreeMap, BTreeSet};

use p2phub_tests::{clients::channel, pair::Pair};
use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::iter;

const INFRASTRUCTURE: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

macro_rules! version {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };

            async fn ask(address: std::net::SocketAddr, request: MessageRequest) -> MessageResponse {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let answer =
                    ServerReflectionClient::new(channel(address)).server_reflection_info(iter([request])).await;
                let answer = answer.expect("a stream").into_inner().message().await.expect("an answer").expect("one");
                answer.message_response.expect("a response")
            }

            async fn files(address: std::net::SocketAddr, request: MessageRequest) -> Vec<FileDescriptorProto> {
                match ask(address, request.clone()).await {
                    MessageResponse::FileDescriptorResponse(found) => {
                        let files = found.file_descriptor_proto.iter();
                        files.map(|file| FileDescriptorProto::decode(file.as_slice()).expect("a descriptor")).collect()
                    }
                    other => panic!("{request:?}: {other:?}"),
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn every_service_is_listed_and_resolves() {
                let pair = Pair::start().await;
                for (address, package, count) in
                    [(pair.referral_address, "p2phub.referral.v1.", 7), (pair.notify_address, "p2phub.notify.v1.", 3)]
                {
                    let listed = ask(address, MessageRequest::ListServices(String::new())).await;
                    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
                    let names: BTreeSet<_> = listed.service.into_iter().map(|service| service.name).collect();
                    let own = names.iter().filter(|name| name.starts_with(package)).count();
                    assert_eq!((own, names.len()), (count, count + INFRASTRUCTURE.len()), "{names:?}");
                    assert!(INFRASTRUCTURE.iter().all(|name| names.contains(*name)), "{names:?}");
                    // As grpcurl does: the file of each service, then whatever that imports.
                    let mut known: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
                    let mut asked: Vec<_> = names.iter().cloned().map(MessageRequest::FileContainingSymbol).collect();
                    // Details of errors, for those who want to read them.
                    asked.push(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()));
                    while let Some(request) = asked.pop() {
                        for file in files(address, request).await {
                            let wanted = file.dependency.iter().filter(|name| !known.contains_key(*name));
                            asked.extend(wanted.cloned().map(MessageRequest::FileByFilename));
                            known.insert(file.name().to_owned(), file);
                        }
                    }
                    let defined: BTreeSet<String> = known
                        .values()
                        .flat_map(|file| file.service.iter().map(|one| format!("{}.{}", file.package(), one.name())))
                        .collect();
                    assert!(names.is_subset(&defined), "{names:?} in {defined:?}");
                }
                let unknown = MessageRequest::FileContainingSymbol("p2phub.Nothing".to_owned());
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(unknown) };
                let mut client = ServerReflectionClient::new(channel(pair.referral_address));
                let status = match client.server_reflection_info(iter([request])).await {
                    Ok(answer) => answer.into_inner().message().await.expect_err("a refusal"),
                    Err(status) => status,
                };
                assert_eq!(status.code(), tonic::Code::NotFound);
                pair.finish().await;
            }
        }
    };
}

version!(v1);
version!(v1alpha);
