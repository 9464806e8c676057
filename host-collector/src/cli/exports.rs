//! The forms that a run is written in beside its report.

use super::output_file::OutputFile;
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use vslice_export::comparison_page::ComparisonPage;
use vslice_export::csv::RequestsCsv;
use vslice_export::folded::OffCpuStacks;
use vslice_export::hlog::LatencyLog;
use vslice_export::page::PageObserver;
use vslice_export::perfetto::PerfettoTrace;
#[cfg(feature = "parquet")]
use vslice_fleet::FleetTables;
use vslice_report::analyse::chosen::Asked;
use vslice_report::analyse::observer::Observer;
use vslice_report::analyse::{SummaryObserver, analyse_chosen};
use vslice_report::summary::Summary;

/// Which files are written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Also write")]
pub(crate) struct Exports {
    /// Write FILE: the run as a page to look at, which holds all that it needs
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write DIR/requests.csv: each request with where its latency went, for a spreadsheet
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Write off-CPU time by stack, for flame graphs: VM, thread, reason, kernel frames, who ran or released the lock
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Write request latencies, whole and by part, as an HdrHistogram interval log of seconds
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev: pCPUs, threads, what kept them off, and each request
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Write tables below DIR, of many runs and hosts, as Parquet: requests, waits, timeslices, locks, vCPUs, runs
    #[cfg(feature = "parquet")]
    #[arg(long, value_name = "DIR")]
    parquet: Option<PathBuf>,
}

impl Exports {
    /// The summary of a run, which is analysed once for it and for all files.
    pub(super) fn analyse(&self, run: &Path) -> Result<Summary> {
        self.analyse_chosen(run, &Asked::default())
    }

    /// The same of a part of it.
    pub(super) fn analyse_chosen(&self, run: &Path, asked: &Asked) -> Result<Summary> {
        let mut summary = SummaryObserver::default();
        let mut page = self.html.as_deref().map(page).transpose()?;
        let mut csv = self.csv.as_deref().map(requests_csv).transpose()?;
        let mut folded = self.folded.as_deref().map(off_cpu_stacks).transpose()?;
        let mut hlog = self.hlog.as_deref().map(create).transpose()?.map(LatencyLog::new);
        let perfetto = self.perfetto.as_deref().map(create).transpose()?;
        let mut perfetto = perfetto.map(PerfettoTrace::new);
        #[cfg(feature = "parquet")]
        let mut fleet = self.parquet.as_deref().map(|folder| fleet(folder, run)).transpose()?;
        let mut observers: Vec<&mut dyn Observer> = vec![&mut summary];
        #[cfg(feature = "parquet")]
        observers.extend(fleet.as_mut().map(|tables| tables as &mut dyn Observer));
        observers.extend(page.as_mut().map(|(page, _)| page as &mut dyn Observer));
        observers.extend(csv.as_mut().map(|csv| csv as &mut dyn Observer));
        observers.extend(folded.as_mut().map(|(stacks, _)| stacks as &mut dyn Observer));
        observers.extend(hlog.as_mut().map(|hlog| hlog as &mut dyn Observer));
        observers.extend(perfetto.as_mut().map(|trace| trace as &mut dyn Observer));
        super::memory::give_blocks_back();
        analyse_chosen(run, asked, &mut observers)?;
        if let Some((csv, path)) = csv.zip(self.csv.as_deref()) {
            csv.finish().and_then(OutputFile::commit).with_context(|| cannot_write(path))?;
        }
        if let Some(((stacks, mut file), path)) = folded.zip(self.folded.as_deref()) {
            let written = stacks.write(&mut file).and_then(|()| file.commit());
            written.with_context(|| cannot_write(path))?;
        }
        if let Some((hlog, path)) = hlog.zip(self.hlog.as_deref()) {
            hlog.finish().and_then(OutputFile::commit).with_context(|| cannot_write(path))?;
        }
        if let Some((trace, path)) = perfetto.zip(self.perfetto.as_deref()) {
            trace.finish().and_then(OutputFile::commit).with_context(|| cannot_write(path))?;
        }
        let summary = summary.into_summary().context("the analysis did not come to its end")?;
        if let Some(((page, mut file), path)) = page.zip(self.html.as_deref()) {
            let written = page.write(&summary, &mut file).and_then(|()| file.commit());
            written.with_context(|| cannot_write(path))?;
        }
        #[cfg(feature = "parquet")]
        if let Some((tables, folder)) = fleet.zip(self.parquet.as_deref()) {
            tables.finish(&summary).with_context(|| cannot_write(folder))?;
        }
        Ok(summary)
    }

    /// Whether the run goes into tables of many runs: a part of it has no place there.
    pub(super) fn is_for_many_runs(&self) -> bool {
        #[cfg(feature = "parquet")]
        return self.parquet.is_some();
        #[cfg(not(feature = "parquet"))]
        return false;
    }

    /// Whether there is a file that only one run can be written to.
    pub(super) fn is_for_one_run(&self) -> bool {
        let files = [&self.html, &self.csv, &self.folded, &self.hlog, &self.perfetto];
        files.into_iter().any(Option::is_some)
    }
}

/// The folder is made first, so that nobody waits in vain.
#[cfg(feature = "parquet")]
fn fleet(folder: &Path, run: &Path) -> Result<FleetTables> {
    std::fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
    Ok(FleetTables::new(folder, run))
}

/// The file is opened first, so that nobody waits in vain for one that cannot be written.
fn page(path: &Path) -> Result<(PageObserver, OutputFile)> {
    Ok((PageObserver::default(), create(path)?))
}

/// Writes the page of a comparison.
pub(super) fn write_page(page: &ComparisonPage<'_>, path: &Path) -> Result<()> {
    let mut file = create(path)?;
    page.write(&mut file).and_then(|()| file.commit()).with_context(|| cannot_write(path))
}

/// An error if this file could not be written later on; nothing is left of the attempt.
pub(super) fn can_write(path: &Path) -> Result<()> {
    create(path).map(drop)
}

fn requests_csv(directory: &Path) -> Result<RequestsCsv<OutputFile>> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(RequestsCsv::new(create(&directory.join("requests.csv"))?))
}

fn off_cpu_stacks(path: &Path) -> Result<(OffCpuStacks, OutputFile)> {
    Ok((OffCpuStacks::default(), create(path)?))
}

fn create(path: &Path) -> Result<OutputFile> {
    OutputFile::create(path).with_context(|| cannot_write(path))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
