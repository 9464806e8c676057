//! The observer that writes a run into the tables.

use crate::names::Names;
use crate::place::Place;
use crate::requests::Vm;
use crate::schema::Table;
use crate::table::{TableError, TableWriter, WholeTable};
use crate::waits::Waits;
use crate::{lock_waits, runs};
use std::path::{Path, PathBuf};
use vslice_core::join::Breakdown;
use vslice_core::task::VmIndex;
use vslice_core::timeline::{LockWait, Span};
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run};
use vslice_report::summary::Summary;
use vslice_trace::host::HostFacts;
use vslice_trace::memory_map::MemoryMap;

/// Why a run is not in the tables.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// See [`TableError`].
    #[error(transparent)]
    Table(#[from] TableError),
    /// The analysis did not begin.
    #[error("no run was told")]
    NothingTold,
}

/// Writes a run into the tables below a folder, each row when it is told.
#[derive(Debug)]
pub struct FleetTables {
    folder: PathBuf,
    run_directory: PathBuf,
    /// Of the run, once it was told; the first error after that, and then nothing is written any more.
    told: Option<Result<Told, TableError>>,
}

/// A run that is being told.
#[derive(Debug)]
struct Told {
    place: Place,
    names: Names,
    window: MeasuredWindow,
    vms: Vec<Vm>,
    devices: Vec<MemoryMap>,
    host: Option<HostFacts>,
    requests: TableWriter,
    waits: Waits,
    lock_waits: TableWriter,
    vcpus: TableWriter,
    runs: TableWriter,
}

/// How many rows of a run there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What the run is called in the tables.
    pub run: String,
    /// Rows by table.
    pub rows: Vec<(&'static str, u64)>,
}

impl FleetTables {
    /// Into the tables below this folder, of the run in that directory.
    #[must_use]
    pub fn new(folder: &Path, run_directory: &Path) -> FleetTables {
        let (folder, run_directory) = (folder.to_owned(), run_directory.to_owned());
        FleetTables { folder, run_directory, told: None }
    }

    /// Gives the files their names, once the run has come to its end and has this summary. `runs` gets its row last: a run
    /// that it has is whole.
    ///
    /// # Errors
    /// With the first error of writing: then no file has its name, and those of an earlier time are as they were.
    pub fn finish(self, summary: &Summary) -> Result<Written, FleetError> {
        let mut told = self.told.ok_or(FleetError::NothingTold)??;
        runs::write_vcpus(summary, &told.place, &mut told.vcpus)?;
        let (host, start) = (told.host.as_ref(), told.window.start);
        runs::write(summary, host, told.vms.len(), start, &told.place, &mut told.runs)?;
        let Told { requests, waits, lock_waits, vcpus, runs, .. } = told;
        let Waits { vcpu_waits, ran_instead, timeslices, .. } = waits;
        let tables = [requests, vcpu_waits, ran_instead, timeslices, lock_waits, vcpus, runs];
        let whole = tables.into_iter().map(TableWriter::close);
        let whole: Vec<WholeTable> = whole.collect::<Result<_, TableError>>()?;
        let rows = whole.iter().map(|table| (table.name, table.rows)).collect();
        whole.into_iter().try_for_each(WholeTable::commit)?;
        Ok(Written { run: told.place.run, rows })
    }

    /// What is told is written, unless something could not be before.
    fn write(&mut self, row: impl FnOnce(&mut Told) -> Result<(), TableError>) {
        if let Some(Ok(told)) = &mut self.told
            && let Err(error) = row(told)
        {
            self.told = Some(Err(error));
        }
    }
}

impl Told {
    fn of(run: &Run<'_>, folder: &Path, run_directory: &Path) -> Result<Told, TableError> {
        let place = Place::of(run.manifest, run_directory);
        let writer = |table: Table| {
            TableWriter::create(&table, place.folder(folder, table.name), &place.run)
        };
        Ok(Told {
            names: Names::of(run.manifest),
            window: run.window,
            vms: run.manifest.vms.iter().map(Vm::of).collect(),
            devices: run.manifest.vms.iter().map(|vm| vm.memory_map.clone()).collect(),
            host: run.manifest.environment.clone(),
            requests: writer(Table::requests())?,
            waits: Waits::new(
                writer(Table::vcpu_waits())?,
                writer(Table::ran_instead())?,
                writer(Table::timeslices())?,
            ),
            lock_waits: writer(Table::lock_waits())?,
            vcpus: writer(Table::vcpus())?,
            runs: writer(Table::runs())?,
            place,
        })
    }
}

impl Observer for FleetTables {
    fn start(&mut self, run: &Run<'_>) {
        self.told = Some(Told::of(run, &self.folder, &self.run_directory));
    }

    fn span(&mut self, span: &Span) {
        self.write(|told| {
            if !told.window.touches(span.start, span.end) {
                return Ok(());
            }
            told.waits.span(span, &told.place, &told.names)
        });
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        self.write(|told| {
            let Told { place, names, devices, lock_waits: table, window, .. } = told;
            if !window.touches(wait.start, wait.end) {
                return Ok(());
            }
            lock_waits::write(wait, place, names, devices, table)
        });
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.write(|told| {
            let Told { vms, place, names, requests, .. } = told;
            vms.get(vm.0).map_or(Ok(()), |vm| vm.write(breakdown, place, names, requests))
        });
    }
}
