//! What was under way when observing ended. A request that hangs until then is the worst there is, and is among none
//! of those that were recorded.

use super::model::{
    OPERATIONS_MAX, ObservedEnd, ObservedHidden, ObservedOperation, Operation, UnderWay,
    UnderWayState,
};
use super::process::Tasks;
use std::cmp::Reverse;
use vslice_trace::observation::{
    HiddenRecord, IssueRecord, ObservationRecord, ObservedEndRecord, UnderWayRecord,
};

/// At the end of any load some requests are under way. One that is younger than this is no stall.
const STALL_MIN_NS: u64 = 10_000_000;

/// What is told of a guest with these operations.
pub(super) fn end(
    record: &ObservationRecord,
    device_name: impl Fn(u16) -> String,
    tasks: &Tasks,
    operations: &[ObservedOperation],
) -> Option<ObservedEnd> {
    let ObservedEndRecord { under_way, earlier_count, passthrough_count, late_count, hidden } =
        record.end.as_ref()?;
    let hidden = hidden.map(told_of);
    let limit_ns = record.slower_than_us.saturating_mul(1_000);
    let row = |of: &UnderWayRecord| {
        let row = under_way_row(of, &device_name, tasks, operations, limit_ns);
        let may_have_ended = hidden.is_some_and(|hidden| may_have_ended(row.state, hidden));
        UnderWay { may_have_ended, is_stalled: row.is_stalled && !may_have_ended, ..row }
    };
    let mut rows: Vec<UnderWay> = under_way.iter().map(row).collect();
    rows.sort_by_key(|row| (!row.is_sync, Reverse(row.age_ns)));
    rows.truncate(OPERATIONS_MAX);
    Some(ObservedEnd {
        under_way_count: under_way.iter().fold(0, |sum: u64, of| sum.saturating_add(of.count)),
        under_way: rows,
        earlier: *earlier_count,
        passthrough: *passthrough_count,
        late_events: *late_count,
        hidden,
    })
}

fn told_of(record: HiddenRecord) -> ObservedHidden {
    let HiddenRecord { queued_count, issued_count, completed_count, others_count, is_exact } =
        record;
    ObservedHidden {
        queued: queued_count,
        issued: issued_count,
        completed: completed_count,
        others: others_count,
        is_exact,
    }
}

/// Whether what seems to be under way may have ended unseen. What was not issued to the driver cannot be done, if each
/// issue was seen; but it may have been refused.
fn may_have_ended(state: UnderWayState, hidden: ObservedHidden) -> bool {
    match state {
        UnderWayState::GuestQueue => hidden.issued > 0 || hidden.others > 0,
        UnderWayState::Issued => hidden.completed > 0,
        UnderWayState::Unknown => hidden.issued > 0 || hidden.completed > 0,
    }
}

fn under_way_row(
    of: &UnderWayRecord,
    device_name: impl Fn(u16) -> String,
    tasks: &Tasks,
    operations: &[ObservedOperation],
    limit_ns: u64,
) -> UnderWay {
    let (device, operation) = (device_name(of.device), Operation::from(of.operation));
    let (process, pid) = tasks.of_number(of.task);
    let alike = operations.iter().find(|row| {
        (row.device.as_str(), row.operation, row.is_sync) == (&device, operation, of.is_sync)
    });
    let longest_ns = alike.and_then(|row| row.latency_ns.max).unwrap_or(0);
    let (state, issued_ns) = match of.issue {
        IssueRecord::NotYet => (UnderWayState::GuestQueue, None),
        IssueRecord::AfterNs(after_ns) => (UnderWayState::Issued, Some(after_ns)),
        IssueRecord::Unknown => (UnderWayState::Unknown, None),
    };
    UnderWay {
        device,
        operation,
        is_sync: of.is_sync,
        count: of.count,
        process,
        pid,
        sector: of.sector,
        bytes: of.bytes.into(),
        age_ns: of.age_ns,
        state,
        issued_ns,
        may_have_ended: false,
        is_stalled: of.age_ns > longest_ns.max(limit_ns).max(STALL_MIN_NS),
    }
}
