//! Errors that the gRPC library makes by itself: they leave with a fitting code and the details that all others have.

use std::time::Duration;

use tonic::{Code, Status};

use crate::error::{Failure, code_name};

/// The failure that a status without details stands for. Bad input is never INTERNAL; what is, is logged here, because
/// nobody else saw it.
pub(super) fn explain(status: &Status) -> Failure {
    let text = status.message();
    let malformed =
        || Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE", text).with_violation("message", "can't be decoded");
    match status.code() {
        Code::Unimplemented if text.is_empty() => {
            Failure::new(Code::Unimplemented, "METHOD_NOT_FOUND", "there is no such method here")
        }
        Code::Unimplemented if text.contains("compressed") => {
            Failure::new(Code::Unimplemented, "UNSUPPORTED_COMPRESSION", text)
        }
        Code::Internal if is_undecodable(text) => malformed(),
        Code::OutOfRange if text.contains("decoded message length too large") => too_large(text),
        Code::ResourceExhausted if text.starts_with("Error decompressing") => too_large(text),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            tracing::error!(code = code_name(status.code()), error = text, "a call failed");
            Failure::internal()
        }
        Code::OutOfRange if text.contains("encoded message length too large") => {
            tracing::error!(error = text, "an answer was too large to send");
            Failure::internal()
        }
        code => Failure::new(code, code_name(code), text),
    }
}

pub(super) fn deadline_exceeded(after: Duration) -> Failure {
    let message =
        format!("no answer within {after:?}; what was asked may yet be done, and the same request_id finds out");
    Failure::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
}

fn too_large(text: &str) -> Failure {
    Failure::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE", text).with_violation("message", "too large")
}

fn is_undecodable(text: &str) -> bool {
    [
        "failed to decode Protobuf message",
        "protocol error: received message",
        "Error decompressing",
        "Missing request message",
        "Unexpected EOF decoding stream",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn bad_input_is_not_internal() {
        let decode_error = prost_types::Timestamp::decode(&[0xff_u8; 3][..]).unwrap_err();
        for (status, code, reason) in [
            (Status::internal(decode_error.to_string()), Code::InvalidArgument, "MALFORMED_MESSAGE"),
            (Status::internal("Missing request message."), Code::InvalidArgument, "MALFORMED_MESSAGE"),
            (
                Status::out_of_range("Error, decoded message length too large: found 9 bytes"),
                Code::InvalidArgument,
                "MESSAGE_TOO_LARGE",
            ),
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_NOT_FOUND"),
            (Status::not_found("service not registered"), Code::NotFound, "NOT_FOUND"),
            (Status::internal("/etc/secret"), Code::Internal, "INTERNAL"),
        ] {
            let failure = explain(&status);
            assert_eq!((failure.code, failure.reason.as_ref()), (code, reason), "{status:?}");
            assert!(!failure.message.contains("secret"));
        }
    }
}
