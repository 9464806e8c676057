//! `requests.csv`: each request that has a place on the host's clock, with where its latency went, for a spreadsheet.
//!
//! Times are nanoseconds. The five columns of phases add up to `latency_ns`, and so do the columns of parts: each
//! nanosecond is in one phase and in one part.

use std::collections::HashMap;
use std::io::Write;
use vslice_core::join::{Breakdown, GuestRequest, Part, Phase};
use vslice_core::task::VmIndex;
use vslice_core::units::HostNs;
use vslice_report::analyse::observer::{Observer, Run, RunEnd};
use vslice_report::summary::observed::Tasks;
use vslice_report::summary::told::READER;
use vslice_report::who::VmNames;
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::operation_name;
use vslice_wire::ObservedRequest;

/// The columns before those of phases and parts; the last two are who ran longest where it waited.
const COLUMNS: [&str; 19] = [
    "vm",
    "made_by",
    "start_ns",
    "latency_ns",
    "clock_bound_ns",
    "device",
    "operation",
    "sync",
    "sector",
    "bytes",
    "process",
    "pid",
    "result",
    "vcpu_queued",
    "vcpu_issued",
    "vcpu_completed",
    "attribution",
    "waited_for",
    "waited_for_ns",
];

/// Writes the requests of a run as CSV (RFC 4180, with a header), in the order in which all is known of them.
#[derive(Debug)]
pub struct RequestsCsv<W: Write> {
    writer: ::csv::Writer<W>,
    /// When the run was first measured.
    start: HostNs,
    names: VmNames,
    vms: Vec<Vm>,
    /// The first error; nothing is written after it.
    error: Option<std::io::Error>,
}

/// What requests of a VM refer to.
#[derive(Debug)]
struct Vm {
    name: String,
    block_bytes: Option<u32>,
    devices: HashMap<u16, String>,
    tasks: Tasks,
}

impl<W: Write> RequestsCsv<W> {
    /// Into this file.
    pub fn new(file: W) -> RequestsCsv<W> {
        let writer = ::csv::Writer::from_writer(file);
        RequestsCsv {
            writer,
            start: HostNs(0),
            names: VmNames::default(),
            vms: Vec::new(),
            error: None,
        }
    }

    /// The file, once the run has come to its end.
    ///
    /// # Errors
    /// With the first error of writing.
    pub fn finish(self) -> std::io::Result<W> {
        match self.error {
            Some(error) => Err(error),
            None => self.writer.into_inner().map_err(::csv::IntoInnerError::into_error),
        }
    }

    /// Who ran longest on a pCPU that the request waited for, and for how long; empty if it waited for none.
    fn antagonist(&self, breakdown: &Breakdown) -> [String; 2] {
        let Some((_, antagonist)) = breakdown.waits.rows().next() else {
            return Default::default();
        };
        [text(&self.names.antagonist(&antagonist.who)), antagonist.ran_ns.to_string()]
    }

    fn row(&mut self, cells: &[String]) {
        if self.error.is_none() {
            self.error = self.writer.write_record(cells).err().map(of_writing);
        }
    }
}

impl<W: Write> Observer for RequestsCsv<W> {
    fn start(&mut self, run: &Run<'_>) {
        self.start = run.window.start;
        self.names = VmNames::of(run.manifest);
        self.vms = run.manifest.vms.iter().map(Vm::of).collect();
        let phases = Phase::ALL.map(|phase| format!("phase_{}_ns", phase.name()));
        let parts = Part::ALL.map(|part| format!("{}_ns", part.name()));
        let header: Vec<String> =
            COLUMNS.into_iter().map(str::to_owned).chain(phases).chain(parts).collect();
        self.row(&header);
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        let Some(of) = self.vms.get(vm.0) else { return };
        let mut cells = of.cells(breakdown, self.start);
        cells.extend(self.antagonist(breakdown));
        cells.extend(Phase::ALL.map(|phase| breakdown.phases.of(phase).total_ns().to_string()));
        cells.extend(Part::ALL.map(|part| breakdown.parts.get(part).to_string()));
        self.row(&cells);
    }

    fn end(&mut self, _: &Run<'_>, _: &RunEnd<'_>) {
        if self.error.is_none() {
            self.error = self.writer.flush().err();
        }
    }
}

impl Vm {
    fn of(record: &VmRecord) -> Vm {
        let observation = record.observation.clone().unwrap_or_default();
        let devices = observation.devices.into_iter();
        Vm {
            name: record.name.clone(),
            block_bytes: record.block_bytes,
            devices: devices.map(|device| (device.number, device.name)).collect(),
            tasks: Tasks::of(&observation.tasks),
        }
    }

    /// Those of [`COLUMNS`] but the last two.
    fn cells(&self, breakdown: &Breakdown, run_start: HostNs) -> Vec<String> {
        let Breakdown { request, start, bounds, .. } = breakdown;
        let [device, sector, bytes, process, pid] = match request {
            GuestRequest::Observed(observed) => self.of_observed(observed),
            GuestRequest::Read(_) => {
                let bytes = self.block_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
                ["", "", &bytes, READER, ""].map(str::to_owned)
            }
        };
        let observed = request.observed();
        let result = observed.map_or_else(
            || request.read().map_or(0, |read| i64::from(read.result)),
            |of| i64::from(of.result),
        );
        let start_ns = i128::from(start.0) - i128::from(run_start.0);
        vec![
            text(&self.name),
            if observed.is_some() { "guest" } else { "reader" }.to_owned(),
            start_ns.to_string(),
            breakdown.latency_ns().to_string(),
            bounds.worst_ns().to_string(),
            device,
            operation_name(request.operation()).to_owned(),
            observed.is_none_or(ObservedRequest::is_sync).to_string(),
            sector,
            bytes,
            process,
            pid,
            result.to_string(),
            request.vcpu_queued().to_string(),
            request.vcpu_issued().to_string(),
            request.vcpu_completed().to_string(),
            breakdown.attribution.name().to_owned(),
        ]
    }

    /// Its device, sector, bytes, process and pid.
    fn of_observed(&self, request: &ObservedRequest) -> [String; 5] {
        let (process, pid) = self.tasks.of_number(request.task);
        [
            self.devices.get(&request.device).map(|name| text(name)).unwrap_or_default(),
            request.sector.to_string(),
            request.bytes.to_string(),
            text(&process),
            pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ]
    }
}

/// The error of the file itself, whose kind says what to do.
fn of_writing(error: ::csv::Error) -> std::io::Error {
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error,
        other => std::io::Error::other(format!("{other:?}")),
    }
}

/// A name of a guest or of the host's processes as a cell. A spreadsheet takes what begins so for a formula, which an
/// apostrophe prevents (OWASP, "CSV Injection").
fn text(name: &str) -> String {
    let name = vslice_core::text::harmless(name);
    if name.starts_with(['=', '+', '-', '@']) { format!("'{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::full::Full;
    use vslice_report::analyse::analyse_with;
    use vslice_report::analyse::drawn::{manifest, names, run_in, streams};
    use vslice_report::analyse::drawn_observed as observed;
    use vslice_trace::ObservedItem;
    use vslice_trace::RunDir;
    use vslice_trace::observation::ObservedTaskRecord;
    use vslice_wire::ObservedFlags;

    type Row = HashMap<String, String>;

    fn rows(run: &RunDir) -> Vec<Row> {
        let mut csv = RequestsCsv::new(Vec::new());
        analyse_with(run.path(), &mut [&mut csv]).unwrap();
        let bytes = csv.finish().unwrap();
        ::csv::Reader::from_reader(bytes.as_slice()).deserialize().map(Result::unwrap).collect()
    }

    fn cells<const N: usize>(row: &Row, columns: [&str; N]) -> [String; N] {
        columns.map(|column| row[column].clone())
    }

    fn number(row: &Row, column: &str) -> u64 {
        row[column].parse().unwrap()
    }

    fn assert_adds_up(row: &Row) {
        let sum = |columns: Vec<String>| columns.iter().map(|of| number(row, of)).sum::<u64>();
        let parts = Part::ALL.map(|part| format!("{}_ns", part.name()));
        let phases = Phase::ALL.map(|phase| format!("phase_{}_ns", phase.name()));
        let latency_ns = number(row, "latency_ns");
        assert_eq!([sum(parts.into()), sum(phases.into())], [latency_ns, latency_ns], "{row:?}");
    }

    #[test]
    fn each_request_of_the_reader_is_a_row_whose_parts_add_up() {
        let scratch = tempfile::tempdir().unwrap();
        let run = run_in(&scratch.path().join("run"), &manifest());
        streams(&run, &[0, 500, 1150], true);
        names(&run);
        let rows = rows(&run);
        assert_eq!(rows.len(), 2);
        rows.iter().for_each(assert_adds_up);
        let told = ["vm", "made_by", "bytes", "process", "operation", "result", "attribution"];
        assert_eq!(
            cells(&rows[0], told),
            ["vm1", "reader", "4096", READER, "read", "4096", "attributed"]
        );
        assert!(number(&rows[0], "start_ns").abs_diff(50_000) < 1_000, "{rows:?}");
        // Of the first's 400 us vm2's vCPU1 had the pCPU for 300.
        assert_eq!(rows[0]["waited_for"], "vm2 vCPU1");
        assert_eq!(number(&rows[0], "waited_for_ns"), number(&rows[0], "preempt_wait_ns"));
    }

    #[test]
    fn an_observed_request_says_who_made_it_and_no_name_is_a_formula() {
        let scratch = tempfile::tempdir().unwrap();
        let mut manifest = observed::observed_manifest();
        let observation = manifest.vms[0].observation.as_mut().unwrap();
        let name = "=cmd|' /C calc'!A0\n\"".to_owned();
        let (title, title_before) = (None, None);
        observation.tasks =
            vec![ObservedTaskRecord { number: 3, pid: 41, name, title, title_before }];
        observation.devices[1].name = "-vdb".to_owned();
        let run = run_in(&scratch.path().join("run"), &manifest);
        observed::host_streams(&run);
        names(&run);
        let mut request = observed::request(1, [100, 120, 400], [0, 0, 1]);
        request.task = 3;
        request.result = -5;
        request.flags = ObservedFlags::SYNC;
        observed::observed_stream(&run, vec![ObservedItem::Request(request)]);
        let rows = rows(&run);
        let row = rows.iter().find(|row| row["made_by"] == "guest").unwrap();
        assert_adds_up(row);
        assert_eq!(
            cells(row, ["device", "operation", "sync", "sector", "bytes", "pid", "result"]),
            ["'-vdb", "write", "true", "16", "8192", "41", "-5"]
        );
        assert_eq!(row["process"], "'=cmd|' /C calc'!A0?\"");
        assert_eq!(cells(row, ["vcpu_queued", "vcpu_issued", "vcpu_completed"]), ["0", "0", "1"]);
        assert!(number(row, "phase_guest_queue_ns").abs_diff(20_000) < 1_000, "{row:?}");
    }

    #[test]
    fn the_first_error_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let run = run_in(&scratch.path().join("run"), &manifest());
        streams(&run, &[0, 500, 1150], true);
        names(&run);
        let mut csv = RequestsCsv::new(Full(100));
        analyse_with(run.path(), &mut [&mut csv]).unwrap();
        assert_eq!(csv.finish().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }
}
