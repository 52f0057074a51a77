//! Routes of the contract that are not built yet. They say so, under the same rules as all others.

use axum::http::Method;

use super::{
    error::{ApiError, Code},
    table::{Answer, Table},
};
use crate::sessions::Verb;

pub(super) fn add(table: &mut Table) {
    for (path, verb, summary) in [
        (
            "/v1/vms/{vm_id}/fork",
            Verb::ForkVm,
            "Fork a VM (not built)",
        ),
        (
            "/v1/vms/{vm_id}/snapshot",
            Verb::SnapshotVm,
            "Snapshot a VM (not built)",
        ),
        (
            "/v1/vms/{vm_id}/resize",
            Verb::ResizeVm,
            "Resize a VM (not built)",
        ),
        (
            "/v1/vms/{vm_id}/optimize",
            Verb::OptimizeVm,
            "Optimize a VM (not built)",
        ),
        (
            "/v1/vms/snapshots",
            Verb::Snapshots,
            "Create a snapshot (not built)",
        ),
    ] {
        table.add(Method::POST, path, verb, summary, unbuilt);
    }
    let snapshot = "/v1/vms/snapshots/{snapshot_id}";
    table.add(
        Method::DELETE,
        snapshot,
        Verb::Snapshots,
        "Delete a snapshot (not built)",
        unbuilt,
    );
}

async fn unbuilt() -> Answer {
    Err(ApiError::new(
        Code::Unimplemented,
        "this gateway does not have this yet",
    ))
}
