//! Calls that no generated client makes: of bytes as they are, and with a deadline that the server alone watches.

use std::net::SocketAddr;

use http::HeaderMap;
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::wait::LIMIT;

/// How a call ends before its first answer: the headers, and the status in them. tonic's clients watch deadlines too, and may
/// be the first to give up; here only the server does.
pub async fn status_of(
    address: SocketAddr,
    method: &str,
    message: &impl Message,
    grpc_timeout: &str,
) -> (HeaderMap, Status) {
    crate::probe::install_tls();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a length").to_be_bytes();
    let request = client
        .post(format!("http://{address}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", grpc_timeout)
        .body([[0].as_slice(), &length, &message].concat());
    let answer = tokio::time::timeout(LIMIT, request.send()).await.expect("an answer in time").expect("an answer");
    let headers = answer.headers().clone();
    let status = Status::from_header_map(&headers).unwrap_or_else(|| panic!("no status in {headers:?}"));
    (headers, status)
}

/// Bytes in, bytes out.
#[derive(Clone, Copy, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
