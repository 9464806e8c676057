//! What an experiment is, and what became of it: the contents of `experiment.json`. Pure.

use super::matrix::{Cell, Dataplane, Matrix};
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use vslice_record::EvidenceSetting;
use vslice_report::summary::Summary;
use vslice_report::summary::service::Engagement;

/// The `schema` of `experiment.json`.
pub const SCHEMA: &str = "vslice.experiment/1";

/// The content of `experiment.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// [`SCHEMA`].
    pub schema: String,
    /// The matrix.
    pub matrix: Matrix,
    /// The plan that all cells start from.
    pub plan: Plan,
    /// The other conditions that all runs share.
    pub made_with: MadeWith,
    /// Every cell.
    pub cells: Vec<CellRecord>,
}

/// The conditions of the runs beside the plan; `None` for what an earlier vslice did not record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MadeWith {
    /// QEMU's version.
    pub qemu: Option<String>,
    /// The manifest of the guests' image.
    pub image: serde_json::Value,
    /// The level of evidence about threads.
    pub evidence: Option<EvidenceSetting>,
}

impl MadeWith {
    /// The first condition that is known for both and differs.
    #[must_use]
    pub fn difference(&self, other: &MadeWith) -> Option<&'static str> {
        let differ = |(one, other)| one != other;
        let qemu = self.qemu.as_ref().zip(other.qemu.as_ref()).is_some_and(differ);
        let image = self.image != other.image && !self.image.is_null() && !other.image.is_null();
        let evidence = self.evidence.zip(other.evidence).is_some_and(|(one, other)| one != other);
        let all = [(qemu, "QEMU"), (image, "guest image"), (evidence, "level of evidence")];
        all.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

/// One condition and its results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Its name, and that of its directory.
    pub name: String,
    /// The condition.
    pub cell: Cell,
    /// Its results.
    #[serde(flatten)]
    pub state: CellState,
}

/// The results of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CellState {
    /// The condition is not possible here.
    Impossible {
        /// The reason, as a sentence.
        reason: String,
    },
    /// The condition is possible.
    Possible {
        /// The runs that were made, by their numbers.
        runs: Vec<RunRecord>,
    },
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The number of the run, from 1.
    pub number: u16,
    /// Why it ended early; `None` if it did not.
    pub ended_early: Option<String>,
    /// How far the iothreads served the disk, if the cell has iothreads, there was a request, and wakeups
    /// were recorded.
    pub engaged: Option<Engagement>,
}

impl Experiment {
    /// Makes an experiment without runs.
    #[must_use]
    pub fn new(
        matrix: Matrix,
        plan: Plan,
        made_with: MadeWith,
        cells: Vec<CellRecord>,
    ) -> Experiment {
        Experiment { schema: SCHEMA.to_owned(), matrix, plan, made_with, cells }
    }

    /// Pairs each condition that has an iothread with the one that differs only in that, by their names.
    /// A condition whose iothreads were not woken proves nothing about iothreads and is in no pair.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let counts = |record: &&CellRecord| {
            let CellState::Possible { runs } = &record.state else { return false };
            !runs.is_empty() && runs.iter().all(|run| run.engaged != Some(Engagement::Not))
        };
        let with = self.cells.iter().filter(|record| record.cell.dataplane != Dataplane::Off);
        let pair = |with: &'_ CellRecord| {
            let off = Cell { dataplane: Dataplane::Off, ..with.cell };
            self.cells.iter().filter(counts).find(|record| record.cell == off)
        };
        let pairs = with.filter(counts).filter_map(|with| Some((pair(with)?, with)));
        pairs.map(|(off, with)| (off.name.as_str(), with.name.as_str())).collect()
    }
}

impl CellRecord {
    /// Whether one of its runs ended early, or was not served by the intended thread.
    #[must_use]
    pub fn is_unsound(&self) -> bool {
        let CellState::Possible { runs } = &self.state else { return false };
        runs.iter().any(|run| run.ended_early.is_some() || run.engaged == Some(Engagement::Not))
    }
}

/// What became of a run.
pub(super) fn record(
    cell: &Cell,
    plan: &Plan,
    number: u16,
    ended_early: Option<String>,
    summary: Option<&Summary>,
) -> RunRecord {
    let reader = plan.vms.iter().find(|vm| vm.reader.is_some());
    let engaged = summary.zip(reader).and_then(|(summary, vm)| summary.engagement_of(&vm.name));
    let engaged = engaged.filter(|_| cell.dataplane != Dataplane::Off);
    RunRecord { number, ended_early, engaged }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its guest may have died before.
    #[test]
    fn a_run_without_requests_makes_no_condition_void() {
        let matrix = Matrix::load("quick").expect("built in");
        let plan = matrix.base_plan().expect("built in");
        let mut summary = vslice_report::summary::example::summary();
        summary.facts.service.clear();
        let engaged =
            |summary: &Summary, cell: Cell| record(&cell, &plan, 1, None, Some(summary)).engaged;
        let [off, iothread] = [matrix.cells()[0], matrix.cells()[1]];
        assert_eq!(engaged(&summary, iothread), Some(Engagement::Not));
        assert_eq!(engaged(&summary, off), None);
        summary.requests.count = 0;
        assert_eq!(engaged(&summary, iothread), None);
        let sampled = vslice_report::summary::example::sampled();
        assert_eq!(engaged(&sampled, iothread), None, "who woke whom is not known");
    }

    #[test]
    fn a_void_condition_is_in_no_pair() {
        let matrix = Matrix::load("quick").expect("built in");
        let plan = matrix.base_plan().expect("built in");
        let record = |cell: Cell, engaged| CellRecord {
            name: cell.to_string(),
            cell,
            state: CellState::Possible {
                runs: vec![RunRecord { number: 1, ended_early: None, engaged }],
            },
        };
        let experiment = |engaged| {
            let cells = matrix.cells();
            let cells = vec![record(cells[0], None), record(cells[1], Some(engaged))];
            Experiment::new(matrix.clone(), plan.clone(), MadeWith::default(), cells)
        };
        let pair = ("virtio-blk.off.native.none", "virtio-blk.iothread.native.none");
        assert_eq!(experiment(Engagement::Whole).pairs(), [pair]);
        assert_eq!(experiment(Engagement::SubmissionOnly).pairs(), [pair]);
        assert!(experiment(Engagement::Not).pairs().is_empty());
    }
}
