//! Compiles the contract without an installed `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 10] = [
    "p2phub/referral/v1/common.proto",
    "p2phub/referral/v1/partner_service.proto",
    "p2phub/referral/v1/payment_service.proto",
    "p2phub/referral/v1/ledger_service.proto",
    "p2phub/referral/v1/payout_service.proto",
    "p2phub/referral/v1/leaderboard_service.proto",
    "p2phub/referral/v1/audit_service.proto",
    "p2phub/referral/v1/broadcast_service.proto",
    "p2phub/notify/v1/notification_service.proto",
    "p2phub/notify/v1/operator_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=p2phub");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // Reflection serves this set: it keeps options that the typed one below drops.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .btree_map(".p2phub.notify.v1.NotificationRequest.arguments")
        .btree_map(".p2phub.notify.v1.RenderPreviewRequest.arguments")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
