//! What became of an experiment, as text and as a page: its conditions, and the pairs of them that are compared.

use crate::cli::terminal::shown;
use std::fmt::Write;
use std::path::Path;
use vslice_core::text::harmless;
use vslice_export::comparison_page::{Command, ComparisonPage, Condition, Pair};
use vslice_lab::experiment::{CellRecord, CellState, Experiment, overview};
use vslice_report::compare::{CompareError, Comparison, Side, load};
use vslice_report::summary::Style;

/// An experiment with its runs.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    experiment: &'a Experiment,
    output: &'a Path,
    /// Of each cell; an error says why no run of it counts.
    sides: Vec<Result<Side, CompareError>>,
    /// By the places of their cells.
    pairs: Vec<(usize, usize, Comparison)>,
}

impl<'a> Outcome<'a> {
    /// Reads the runs that are in `output` by now.
    pub(super) fn load(experiment: &'a Experiment, output: &'a Path) -> Outcome<'a> {
        let sides: Vec<Result<Side, CompareError>> =
            experiment.cells.iter().map(|cell| load(&output.join(&cell.name))).collect();
        let place = |name: &str| experiment.cells.iter().position(|cell| cell.name == name);
        let compared = |(off, with): (&str, &str)| {
            let (a, b) = (place(off)?, place(with)?);
            let side = |place: usize| sides[place].as_ref().ok().cloned();
            Some((a, b, Comparison::new(side(a)?, side(b)?)))
        };
        let pairs = experiment.pairs().into_iter().filter_map(compared).collect();
        Outcome { experiment, output, sides, pairs }
    }

    /// What is printed.
    pub(super) fn text(&self, style: Style) -> String {
        let cells = &self.experiment.cells;
        let mut text = heading(self.experiment, false);
        // A condition without a usable run is already listed above.
        let sides = cells.iter().zip(&self.sides);
        let sides: Vec<(&str, &Side)> =
            sides.filter_map(|(cell, side)| Some((&*cell.name, side.as_ref().ok()?))).collect();
        let _ = write!(text, "\n{}", overview::render(&sides, style));
        for (a, b, comparison) in &self.pairs {
            let claim = comparison.claim.as_ref().map(|claim| &claim.sentence);
            let sentence = claim.unwrap_or(&comparison.answer.sentence);
            let (off, with) = (&cells[*a].name, &cells[*b].name);
            let _ = write!(text, "\nA {off} against B {with}:\n  {sentence}\n");
        }
        let _ = writeln!(
            text,
            "\nthe runs are in {0}; to compare two conditions in full: vslice compare {0}/A {0}/B",
            self.output.display()
        );
        text
    }

    /// The same as a page.
    pub(super) fn page(&self) -> ComparisonPage<'_> {
        let matrix = &self.experiment.matrix;
        let conditions = self.experiment.cells.iter().zip(&self.sides).map(|(cell, side)| {
            let mut state = state_of(cell, matrix.repeat, false);
            if let (Err(error), true) = (side, has_runs(cell)) {
                state.push_str(&format!("; {error}"));
            }
            Condition {
                name: harmless(&cell.name),
                state: harmless(&state),
                side: side.as_ref().ok(),
            }
        });
        let pairs = self.pairs.iter().map(|(a, b, comparison)| Pair { a: *a, b: *b, comparison });
        ComparisonPage {
            command: Command::Experiment,
            title: harmless(&format!("{}: {}", matrix.name, matrix.description)),
            partial: partial(self.experiment),
            conditions: conditions.collect(),
            pairs: pairs.collect(),
            text: self.text(Style::PLAIN),
        }
    }
}

/// The conditions, with what became of their runs, or how many each will have.
pub(super) fn heading(experiment: &Experiment, is_list: bool) -> String {
    let matrix = &experiment.matrix;
    let mut text = format!("Experiment {}: {}\n", matrix.name, matrix.description);
    let width = experiment.cells.iter().map(|cell| cell.name.len()).max().unwrap_or(0);
    for cell in &experiment.cells {
        let state = shown(&state_of(cell, matrix.repeat, is_list));
        let _ = writeln!(text, "  {:width$}  {state}", cell.name);
    }
    text
}

/// How many runs of how many are there, if not all are.
fn partial(experiment: &Experiment) -> Option<String> {
    let repeat = usize::from(experiment.matrix.repeat);
    let possible = experiment.cells.iter().filter_map(|cell| match &cell.state {
        CellState::Impossible { .. } => None,
        CellState::Possible { runs } => Some(runs.len()),
    });
    let (made, wanted) =
        possible.fold((0, 0), |(made, wanted), runs| (made + runs, wanted + repeat));
    (made < wanted).then(|| {
        format!("{made} of {wanted} runs are made; the same command with the same --output makes the others.")
    })
}

fn has_runs(cell: &CellRecord) -> bool {
    matches!(&cell.state, CellState::Possible { runs } if !runs.is_empty())
}

fn state_of(cell: &CellRecord, repeat: u16, is_list: bool) -> String {
    let runs = match &cell.state {
        CellState::Impossible { reason } => return format!("not available here: {reason}"),
        CellState::Possible { .. } if is_list => return format!("{repeat} runs"),
        CellState::Possible { runs } => runs,
    };
    let complete = runs.iter().filter(|run| run.ended_early.is_none()).count();
    let mut text = format!("{complete} of {repeat} runs");
    if let Some(reason) = runs.iter().find_map(|run| run.ended_early.as_ref()) {
        text.push_str(&format!("; one ended early: {reason}"));
    }
    if let Some(least) = runs.iter().filter_map(|run| run.engaged).max() {
        text.push_str(&format!("; {}", least.label()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_lab::experiment::{Matrix, RunRecord};

    /// The matrix `quick` with so many runs of each condition; the last one is not possible.
    fn quick(runs: [u16; 3]) -> Experiment {
        let matrix = Matrix::load("quick").unwrap();
        let plan = matrix.base_plan().unwrap();
        let run = |number| RunRecord { number, ended_early: None, engaged: None };
        let possible = |count: u16| CellState::Possible { runs: (1..=count).map(run).collect() };
        let impossible = CellState::Impossible { reason: "IDE has none".to_owned() };
        let states = runs.map(possible).into_iter().chain([impossible]);
        let record = |(cell, state)| CellRecord { name: format!("{cell}"), cell, state };
        let cells = matrix.cells().into_iter().zip(states).map(record).collect();
        Experiment::new(matrix, plan, Default::default(), cells)
    }

    #[test]
    fn an_experiment_that_is_not_whole_says_how_many_of_how_many_runs_are_made() {
        assert_eq!(partial(&quick([5, 5, 5])), None);
        let said = partial(&quick([2, 2, 1])).unwrap();
        assert!(said.starts_with("5 of 15 runs are made;"), "{said}");
    }

    #[test]
    fn a_page_has_every_condition_and_the_text_and_pairs_only_what_has_runs() {
        let output = tempfile::tempdir().unwrap();
        let experiment = quick([1, 0, 0]);
        let outcome = Outcome::load(&experiment, output.path());
        let page = outcome.page();
        let states: Vec<&str> = page.conditions.iter().map(|of| of.state.as_str()).collect();
        // The run that is said to be there has no directory.
        assert!(states[0].starts_with("1 of 5 runs; cannot list "), "{states:?}");
        assert_eq!(states[1..], ["0 of 5 runs", "0 of 5 runs", "not available here: IDE has none"]);
        assert!(page.pairs.is_empty() && page.conditions.iter().all(|of| of.side.is_none()));
        assert_eq!(page.text, outcome.text(Style::PLAIN));
        assert!(page.text.starts_with(&heading(&experiment, false)), "{}", page.text);
    }
}
