//! What the server knows of the published contract: which methods there are, which stream, and reflection over it all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

const DESCRIPTORS: [&[u8]; 5] = [
    p2phub_proto::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_types::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// Every method's `package.Service/Method`, and whether it streams in either direction.
static METHODS: LazyLock<HashMap<String, bool>> = LazyLock::new(|| {
    let files = DESCRIPTORS
        .iter()
        .filter_map(|descriptors| FileDescriptorSet::decode(*descriptors).ok())
        .flat_map(|set| set.file);
    let mut methods = HashMap::new();
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(name, method.client_streaming() || method.server_streaming());
            }
        }
    }
    methods
});

/// A call's method, as far as the edge cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rpc {
    /// `package.Service/Method`; cut short if the contract has no such method. For log lines.
    pub(super) name: Cow<'static, str>,
    /// The same, but `_OTHER` if the contract has no such method: for the names of spans and the labels of metrics.
    pub(super) method: &'static str,
    pub(super) streams: bool,
    /// Health and reflection: not the service's own work.
    pub(super) infrastructure: bool,
}

impl Rpc {
    pub(super) const OTHER: &'static str = "_OTHER";
    const UNKNOWN_LENGTH: usize = 128;

    pub(super) fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        let (name, method, streams) = match METHODS.get_key_value(name) {
            Some((name, streams)) => (Cow::Borrowed(name.as_str()), name.as_str(), *streams),
            None => (Cow::Owned(name.chars().take(Self::UNKNOWN_LENGTH).collect()), Self::OTHER, false),
        };
        let infrastructure =
            name.split_once('/').is_some_and(|(service, _)| service == HEALTH || REFLECTION.contains(&service));
        Self { name, method, streams, infrastructure }
    }
}

/// Both versions of reflection (grpcurl's older ones know only v1alpha), listing the services that are served here.
pub(super) fn with_reflection(routes: Routes, service_names: &[&str]) -> Routes {
    let builder = || {
        let names = service_names.iter().chain(&[HEALTH]).chain(&REFLECTION);
        let builder =
            DESCRIPTORS.iter().fold(Builder::configure(), |it, set| it.register_encoded_file_descriptor_set(set));
        names.fold(builder, |it, name| it.with_service_name(*name))
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        // They were made by the same build: a unit test reads them all.
        (v1, v1alpha) => {
            let error = v1.err().or(v1alpha.err()).map(|error| error.to_string());
            tracing::error!(error, "reflection is off: a descriptor can't be read");
            routes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_from_the_descriptors() {
        assert!(DESCRIPTORS.iter().all(|it| FileDescriptorSet::decode(*it).is_ok()));
        assert!(Rpc::of("/p2phub.notify.v1.NotificationIngestService/Publish").streams);
        assert!(!Rpc::of("/p2phub.referral.v1.PartnerService/GetPartner").streams);
        assert!(Rpc::of("/grpc.health.v1.Health/Check").infrastructure);
        assert!(Rpc::of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo").streams);
        let unknown = Rpc::of(&format!("/{}", "x".repeat(500)));
        assert_eq!((unknown.name.len(), unknown.method), (Rpc::UNKNOWN_LENGTH, Rpc::OTHER));
    }
}
