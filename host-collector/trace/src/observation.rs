//! What a run's manifest says of the block requests that an agent observed in its guest.

use serde::{Deserialize, Serialize};
use vslice_wire::{BlockOperation, CompletionVcpu, GuestTicks, ObservedHidden, ObservedIssue};

/// What was observed in one guest. The requests are in `observed-<vm>.vsr`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservationRecord {
    /// The disks, by the numbers that requests call them.
    pub devices: Vec<ObservedDeviceRecord>,
    /// Who made requests, by the numbers that requests call them.
    pub tasks: Vec<ObservedTaskRecord>,
    /// Requests that took less than this many microseconds were only counted, in `others`; 0: all are in
    /// the stream.
    pub slower_than_us: u64,
    /// Those that were only counted.
    pub others: Vec<ObservedOthersRecord>,
    /// How many requests are in the stream.
    pub requests_count: u64,
    /// How many events of the guest's kernel were not recorded.
    pub lost_count: u64,
    /// What observing cost the guest; `None` if it did not say so.
    pub cost: Option<ObservedCostRecord>,
    /// What it said when observing ended; `None` if it did not come to that, and in runs of older versions.
    #[serde(default)]
    pub end: Option<ObservedEndRecord>,
}

/// A whole disk, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDeviceRecord {
    /// What requests call it.
    pub number: u16,
    /// The guest's name for it.
    pub name: String,
    /// Its size in bytes; `None` if the guest could not read that.
    pub size_bytes: Option<u64>,
    /// Its serial number, if the guest sees one.
    pub serial: Option<String>,
    /// Where it is on the guest's bus, if the guest could read that.
    pub address: Option<String>,
    /// The I/O scheduler of its queue, if the guest could read that.
    pub io_scheduler: Option<String>,
    /// How many hardware queues it has, if the guest could read that.
    pub hardware_queues: Option<u16>,
    /// On which vCPU the guest completes its requests.
    #[serde(default, with = "completion_vcpu")]
    pub completion_vcpu: CompletionVcpu,
    /// The place in the VM's `disks` of the one that it is.
    pub disk: Option<usize>,
    /// Why that is unknown, as a sentence without its full stop.
    pub disk_missing: Option<String>,
}

/// Who made requests: a process of the guest, under one of its threads' names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTaskRecord {
    /// What requests call it.
    pub number: u32,
    /// Its process id in the guest.
    pub pid: u32,
    /// The thread's name.
    pub name: String,
    /// What the process calls itself, if that is known.
    pub title: Option<String>,
    /// What it called itself when it was looked at before, if that was something else.
    #[serde(default)]
    pub title_before: Option<String>,
}

/// Requests that were only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedOthersRecord {
    /// The number of their disk.
    pub device: u16,
    /// What they did.
    #[serde(with = "operation")]
    pub operation: BlockOperation,
    /// Whether somebody waited for them, as `ObservedRequest::is_sync` of `vslice-wire` says it.
    pub is_sync: bool,
    /// How many there were.
    pub count: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// How long they took together, from queued to completed, by the guest's clock.
    pub total_ns: u64,
}

/// What is known of a guest's requests that the stream does not have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedEndRecord {
    /// Requests that were under way when observing ended.
    pub under_way: Vec<UnderWayRecord>,
    /// Requests that were under way when it began.
    pub earlier_count: u64,
    /// Requests that are no block I/O: commands of SCSI and NVMe, for instance.
    pub passthrough_count: u64,
    /// Events that the guest's agent read after later ones had been handled; what they may have been of is
    /// among the losses.
    pub late_count: u64,
    /// Events that the guest's kernel hid from its agent; `None` in runs of older versions.
    #[serde(default)]
    pub hidden: Option<HiddenRecord>,
}

/// Events that a guest's kernel counted and recorded nothing of, nor told that it lost them: some kernels hide what
/// happens while certain tasks are current, the idle task for instance. By what the events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HiddenRecord {
    /// That a request was asked for.
    pub queued_count: u64,
    /// That the driver got one.
    pub issued_count: u64,
    /// That one, or a part of it, was done.
    pub completed_count: u64,
    /// That one was sent on, refused or given back.
    pub others_count: u64,
    /// Whether that is all; else it is as many at least.
    pub is_exact: bool,
}

impl From<ObservedHidden> for HiddenRecord {
    fn from(hidden: ObservedHidden) -> HiddenRecord {
        let ObservedHidden { queued_count, issued_count, completed_count, others_count, is_exact } =
            hidden;
        HiddenRecord { queued_count, issued_count, completed_count, others_count, is_exact }
    }
}

/// Requests of one disk and operation that were under way when observing ended, and the one of them that was
/// queued first. What was asked for and is no request yet counts as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWayRecord {
    /// The number of their disk.
    pub device: u16,
    /// What they do.
    #[serde(with = "operation")]
    pub operation: BlockOperation,
    /// Whether somebody waits for them, as `ObservedRequest::is_sync` of `vslice-wire` says it.
    pub is_sync: bool,
    /// How many there were.
    pub count: u64,
    /// The first of the oldest one's sectors of 512 bytes.
    pub sector: u64,
    /// Its length; 0 for a flush.
    pub bytes: u32,
    /// Who asked for it, by the number of its task.
    pub task: u32,
    /// How long before the end it was queued, by the guest's clock.
    pub age_ns: u64,
    /// Whether the disk's driver had it.
    pub issue: IssueRecord,
}

/// Whether the disk's driver has a request that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueRecord {
    /// It waits in the guest's own queue.
    NotYet,
    /// Since so many nanoseconds after it was queued.
    AfterNs(u64),
    /// No event says so: it is a flush, or a write that has a flush before it.
    Unknown,
}

impl IssueRecord {
    /// What is told of a request that was queued at `queued`, in the ticks of CLOCK_MONOTONIC_RAW.
    #[must_use]
    pub fn of(issue: ObservedIssue, queued: GuestTicks) -> IssueRecord {
        match issue {
            ObservedIssue::NotYet => IssueRecord::NotYet,
            ObservedIssue::At(at) => IssueRecord::AfterNs(at.0.saturating_sub(queued.0)),
            ObservedIssue::Unknown => IssueRecord::Unknown,
        }
    }
}

/// What observing cost a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCostRecord {
    /// The agent's time on vCPUs. What the guest's kernel took to record is not in it.
    pub cpu_ns: u64,
    /// Events that the guest's kernel recorded.
    pub events_count: u64,
    /// Those that it had no room for.
    pub lost_count: u64,
    /// What one reading of the guest's clock took, at best.
    pub clock_read_ns: u64,
}

/// The name of an operation, in manifests and summaries.
#[must_use]
pub fn operation_name(operation: BlockOperation) -> &'static str {
    match operation {
        BlockOperation::Read => "read",
        BlockOperation::Write => "write",
        BlockOperation::Flush => "flush",
        BlockOperation::Discard => "discard",
        BlockOperation::Other => "other",
    }
}

/// The name of where requests are completed, in manifests and summaries.
#[must_use]
pub fn completion_vcpu_name(vcpu: CompletionVcpu) -> &'static str {
    match vcpu {
        CompletionVcpu::Unknown => "unknown",
        CompletionVcpu::Interrupted => "interrupted",
        CompletionVcpu::InterruptedOrQueued => "interrupted_or_queued",
        CompletionVcpu::Queued => "queued",
    }
}

mod completion_vcpu {
    use super::{CompletionVcpu, completion_vcpu_name};
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(
        vcpu: &CompletionVcpu,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(completion_vcpu_name(*vcpu))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<CompletionVcpu, D::Error> {
        let name = String::deserialize(deserializer)?;
        let mut all = CompletionVcpu::ALL.into_iter();
        all.find(|vcpu| completion_vcpu_name(*vcpu) == name)
            .ok_or_else(|| de::Error::custom(format!("no vCPU completes as {name:?} says")))
    }
}

mod operation {
    use super::{BlockOperation, operation_name};
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(
        operation: &BlockOperation,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(operation_name(*operation))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BlockOperation, D::Error> {
        let name = String::deserialize(deserializer)?;
        let mut all = BlockOperation::ALL.into_iter();
        all.find(|operation| operation_name(*operation) == name)
            .ok_or_else(|| de::Error::custom(format!("no block operation is called {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_are_completed_is_known_by_its_name_and_unknown_in_older_runs() {
        let mut json = serde_json::json!({
            "number": 0, "name": "vda", "size_bytes": null, "serial": null, "address": null,
            "io_scheduler": null, "hardware_queues": 1, "disk": null, "disk_missing": null,
        });
        let read =
            |json: &serde_json::Value| serde_json::from_value::<ObservedDeviceRecord>(json.clone());
        assert_eq!(read(&json).unwrap().completion_vcpu, CompletionVcpu::Unknown);
        for vcpu in CompletionVcpu::ALL {
            json["completion_vcpu"] = completion_vcpu_name(vcpu).into();
            let record = read(&json).unwrap();
            assert_eq!(record.completion_vcpu, vcpu);
            assert_eq!(serde_json::to_value(record).unwrap(), json);
        }
        json["completion_vcpu"] = "everywhere".into();
        assert!(read(&json).is_err());
    }

    #[test]
    fn what_was_under_way_is_read_again_and_older_runs_know_of_none() {
        let queued = GuestTicks(100);
        for (issue, named) in [
            (ObservedIssue::NotYet, serde_json::json!("not_yet")),
            (ObservedIssue::At(GuestTicks(130)), serde_json::json!({"after_ns": 30})),
            (ObservedIssue::At(GuestTicks(1)), serde_json::json!({"after_ns": 0})),
            (ObservedIssue::Unknown, serde_json::json!("unknown")),
        ] {
            let (device, operation, is_sync, count) = (1, BlockOperation::Write, true, 2);
            let (sector, bytes, task, age_ns) = (8, 4096, 3, 3_200_000_000);
            let issue = IssueRecord::of(issue, queued);
            let oldest = UnderWayRecord {
                device,
                operation,
                is_sync,
                count,
                sector,
                bytes,
                task,
                age_ns,
                issue,
            };
            let json = serde_json::to_value(oldest).unwrap();
            assert_eq!(json["issue"], named);
            assert_eq!(serde_json::from_value::<UnderWayRecord>(json).unwrap(), oldest);
            let (earlier_count, passthrough_count, late_count) = (4, 5, 6);
            let under_way = vec![oldest];
            let mut end = ObservedEndRecord {
                under_way,
                earlier_count,
                passthrough_count,
                late_count,
                hidden: Some(HiddenRecord { completed_count: 7, ..HiddenRecord::default() }),
            };
            let record = |end: &ObservedEndRecord| ObservationRecord {
                end: Some(end.clone()),
                ..ObservationRecord::default()
            };
            let mut json = serde_json::to_value(record(&end)).unwrap();
            let read =
                |json: &serde_json::Value| ObservationRecord::deserialize(json.clone()).unwrap();
            assert_eq!(read(&json), record(&end));
            json["end"].as_object_mut().unwrap().remove("hidden");
            end.hidden = None;
            assert_eq!(read(&json), record(&end), "an older run");
        }
        let mut json = serde_json::to_value(ObservationRecord::default()).unwrap();
        json.as_object_mut().unwrap().remove("end");
        assert_eq!(serde_json::from_value::<ObservationRecord>(json).unwrap().end, None);
    }

    #[test]
    fn an_operation_is_known_by_its_name() {
        for operation in BlockOperation::ALL {
            let (device, is_sync, count) = (1, true, 2);
            let others =
                ObservedOthersRecord { device, operation, is_sync, count, bytes: 3, total_ns: 4 };
            let json = serde_json::to_value(others).unwrap();
            assert_eq!(json["operation"], operation_name(operation));
            assert_eq!(serde_json::from_value::<ObservedOthersRecord>(json).unwrap(), others);
        }
        let json =
            r#"{"device":1,"operation":"erase","is_sync":true,"count":2,"bytes":3,"total_ns":4}"#;
        let error = serde_json::from_str::<ObservedOthersRecord>(json).unwrap_err();
        assert!(error.to_string().contains("no block operation is called \"erase\""), "{error}");
    }
}
