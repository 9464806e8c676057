//! Rows of `requests`.

use crate::names::{Names, Ran};
use crate::place::Place;
use crate::table::{Cell, TableError, TableWriter};
use std::collections::HashMap;
use vslice_core::join::{Breakdown, GuestRequest, Part, Phase};
use vslice_core::text::harmless;
use vslice_report::summary::observed::Tasks;
use vslice_report::summary::told::READER;
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::operation_name;
use vslice_wire::ObservedRequest;

/// What requests of a VM refer to.
#[derive(Debug)]
pub(crate) struct Vm {
    name: String,
    block_bytes: Option<u32>,
    devices: HashMap<u16, String>,
    tasks: Tasks,
}

/// What only an observed request, or only the reader's tells.
struct Told<'a> {
    device: Option<&'a str>,
    sector: Option<u64>,
    bytes: Option<u64>,
    process: String,
    pid: Option<u32>,
    result: i64,
}

impl Vm {
    pub(crate) fn of(record: &VmRecord) -> Vm {
        let observation = record.observation.clone().unwrap_or_default();
        let devices = observation.devices.iter();
        Vm {
            name: harmless(&record.name),
            block_bytes: record.block_bytes,
            devices: devices.map(|device| (device.number, harmless(&device.name))).collect(),
            tasks: Tasks::of(&observation.tasks),
        }
    }

    fn told(&self, request: &GuestRequest) -> Told<'_> {
        match request {
            GuestRequest::Observed(observed) => {
                let (process, pid) = self.tasks.of_number(observed.task);
                Told {
                    device: self.devices.get(&observed.device).map(String::as_str),
                    sector: Some(observed.sector),
                    bytes: Some(observed.bytes.into()),
                    process: harmless(&process),
                    pid,
                    result: observed.result.into(),
                }
            }
            GuestRequest::Read(read) => Told {
                device: None,
                sector: None,
                bytes: self.block_bytes.map(u64::from),
                process: READER.to_owned(),
                pid: None,
                result: read.result.into(),
            },
        }
    }

    /// Writes a request of this VM.
    pub(crate) fn write(
        &self,
        breakdown: &Breakdown,
        place: &Place,
        names: &Names,
        table: &mut TableWriter,
    ) -> Result<(), TableError> {
        let request = &breakdown.request;
        let (told, observed) = (self.told(request), request.observed());
        let ran = breakdown.waits.rows().next().map(|(_, first)| names.ran(&first));
        let mut cells = vec![
            Cell::Text(&place.run),
            Cell::Text(&self.name),
            Cell::Text(if observed.is_some() { "guest" } else { "reader" }),
            place.time(breakdown.start),
            place.since_start(breakdown.start),
            Cell::count(breakdown.latency_ns()),
            Cell::count(breakdown.bounds.worst_ns()),
            told.device.into(),
            Cell::Text(operation_name(request.operation())),
            Cell::Flag(observed.is_none_or(ObservedRequest::is_sync)),
            Cell::maybe(told.sector),
            Cell::maybe(told.bytes),
            Cell::Text(&told.process),
            Cell::maybe(told.pid.map(u64::from)),
            Cell::Integer(told.result),
            Cell::Integer(request.vcpu_queued().into()),
            Cell::Integer(request.vcpu_issued().into()),
            Cell::Integer(request.vcpu_completed().into()),
            Cell::Text(breakdown.attribution.name()),
            breakdown.io.err().map_or(Cell::None, |why| Cell::Text(why.name())),
            ran.as_ref().map_or(Cell::None, Ran::name),
            ran.as_ref().map_or(Cell::None, Ran::vm),
            Cell::maybe(ran.as_ref().map(|ran| ran.ran_ns)),
        ];
        cells.extend(Phase::ALL.map(|phase| Cell::count(breakdown.phases.of(phase).total_ns())));
        cells.extend(Part::ALL.map(|part| Cell::count(breakdown.parts.get(part))));
        table.push(&cells)
    }
}
