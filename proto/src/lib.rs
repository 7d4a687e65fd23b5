//! The published contract of P2PHub's referral pair: messages, clients, servers, and the descriptors for reflection.
//!
//! The `.proto` files beside this crate are the source; their comments are its documentation.

/// Package `p2phub.referral.v1`.
pub mod referral {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("p2phub.referral.v1");
    }
}

/// Package `p2phub.notify.v1`.
pub mod notify {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("p2phub.notify.v1");
    }
}

/// Every file of the contract with its imports, as a serialised `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
