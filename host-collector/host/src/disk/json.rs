//! A disk as `vslice ps --json` and manifests have it: what is not known has its reason beside it.

use super::{Aio, DirectSource, Disk, Storage};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
struct DiskJson<'a> {
    id: &'a Option<String>,
    bus: String,
    #[serde(skip_serializing_if = "is_false")]
    is_cdrom: bool,
    storage: &'a Storage,
    path: Option<String>,
    format: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_missing: Option<String>,
    is_direct: Option<bool>,
    is_direct_from: Option<DirectSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_direct_missing: Option<String>,
    aio: Option<Aio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aio_missing: Option<String>,
    iothreads: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    iothreads_missing: &'a Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    passes_commands: bool,
    is_kicked_by_exit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    contradiction: &'a Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(is_so: &bool) -> bool {
    !is_so
}

impl Serialize for Disk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = DiskJson {
            id: &self.id,
            bus: self.bus.to_string(),
            is_cdrom: self.is_cdrom,
            storage: &self.storage,
            path: self.path().map(|path| path.to_string_lossy().into_owned()),
            format: &self.format,
            format_missing: self.format_missing(),
            is_direct: self.is_direct,
            is_direct_from: self.is_direct_from,
            is_direct_missing: self.direct_missing(),
            aio: self.aio,
            aio_missing: self.aio_missing(),
            iothreads: &self.iothreads,
            iothreads_missing: &self.iothreads_missing,
            passes_commands: self.passes_commands,
            is_kicked_by_exit: self.ioeventfd == Some(false),
            contradiction: &self.contradiction,
        };
        json.serialize(serializer)
    }
}
