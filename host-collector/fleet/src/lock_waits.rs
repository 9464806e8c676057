//! Rows of `lock_waits`.

use crate::names::Names;
use crate::place::Place;
use crate::table::{Cell, TableError, TableWriter};
use vslice_core::text::harmless;
use vslice_core::timeline::LockWait;
use vslice_trace::memory_map::MemoryMap;

/// Writes a sleep on a lock; `devices` are those of each VM.
pub(crate) fn write(
    wait: &LockWait,
    place: &Place,
    names: &Names,
    devices: &[MemoryMap],
    table: &mut TableWriter,
) -> Result<(), TableError> {
    let Some(thread) = names.thread(wait.tid) else { return Ok(()) };
    let (released_by, released_by_vm) = names.tid(wait.released_by);
    let address = wait.address.map(|address| format!("{address:#x}"));
    let map = devices.get(thread.vm.0);
    let device = wait.device.zip(map).map(|(at, map)| harmless(&map.device(at)));
    table.push(&[
        Cell::Text(&place.run),
        Cell::Text(&thread.vm_name),
        thread.vcpu.map_or(Cell::None, |vcpu| Cell::Integer(vcpu.0.into())),
        Cell::Text(&thread.role),
        place.time(wait.start),
        place.since_start(wait.start),
        Cell::count(wait.end.since_ns(wait.start)),
        Cell::Text(wait.reason.name()),
        address.as_deref().into(),
        Cell::Text(&released_by),
        released_by_vm.into(),
        Cell::maybe(wait.held_ns),
        device.as_deref().into(),
    ])
}
