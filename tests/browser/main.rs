//! The HTML pages in a real browser: headless Chromium opens them, and `page.mjs` and `comparison.mjs` have what is asked
//! of them. `vslice report --html` makes the page of a stored run, `comparisons.rs` those of conditions side by side. One
//! test for one behaviour.
//!
//! Without the built binary every test here is reported as ignored; without a browser none can judge.

mod comparisons;
mod runs;

use comparisons::Compared;
use libtest_mimic::{Arguments, Failed, Trial};
use runs::Run;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tempfile::TempDir;
use vslice_tests::{Lab, not_judged};

/// One test: what it shows, the case of `page.mjs` or `comparison.mjs`, and of what it gets the pages.
type Case = (&'static str, &'static str, Of);

#[derive(Debug, Clone, Copy)]
enum Of {
    Runs(&'static [Run]),
    Comparisons(&'static [Compared]),
}

use Of::{Comparisons, Runs};

const CASES: &[Case] = &[
    (
        "the_figures_on_the_page_are_those_of_the_summary",
        "figures",
        Runs(&[Run::Read, Run::Observed, Run::Sampled]),
    ),
    (
        "every_figure_of_the_text_is_on_the_page",
        "text",
        Runs(&[
            Run::Read,
            Run::Observed,
            Run::Limited,
            Run::Killed,
            Run::Sampled,
            Run::FourVms,
            Run::Exits,
        ]),
    ),
    ("tables_sort_by_what_was_before_it_was_rounded", "sorting", Runs(&[Run::Read])),
    ("a_stretch_of_time_is_chosen_by_mouse_keyboard_and_number", "selecting", Runs(&[Run::Read])),
    ("the_shares_of_a_stretch_of_time_add_up", "shares", Runs(&[Run::Read])),
    ("bars_and_lanes_tell_the_keyboard_what_they_tell_the_mouse", "keyboard", Runs(&[Run::Read])),
    ("names_with_markup_stay_text", "markup", Runs(&[Run::Hostile])),
    ("a_partial_run_says_so", "partial", Runs(&[Run::Killed])),
    ("a_run_without_requests_shows_the_rest", "without", Runs(&[Run::Idle])),
    ("a_sampled_run_has_shares_and_no_counts", "sampled", Runs(&[Run::Sampled])),
    ("four_vms_are_all_there", "four", Runs(&[Run::FourVms])),
    ("a_page_on_paper_is_white_and_whole", "paper", Runs(&[Run::Observed])),
    ("no_page_is_wider_than_its_window_and_colours_stand_out", "shapes", Runs(Run::ALL)),
    (
        "the_figures_of_a_comparison_are_those_of_its_json",
        "comparedFigures",
        Comparisons(&[
            Compared::Held,
            Compared::Doubtful,
            Compared::Thin,
            Compared::Attached,
            Compared::Stored,
        ]),
    ),
    (
        "every_figure_of_a_comparisons_text_is_on_its_page",
        "text",
        Comparisons(&[
            Compared::Held,
            Compared::Doubtful,
            Compared::Thin,
            Compared::Attached,
            Compared::Stored,
        ]),
    ),
    (
        "the_figures_of_an_experiment_are_all_there",
        "experimentFigures",
        Comparisons(&[Compared::Many]),
    ),
    ("a_comparisons_tables_sort", "sorting", Comparisons(&[Compared::Attached, Compared::Many])),
    (
        "points_and_intervals_tell_the_keyboard_what_they_tell_the_mouse",
        "points",
        Comparisons(&[Compared::Held, Compared::Many]),
    ),
    ("a_comparisons_names_with_markup_stay_text", "markup", Comparisons(&[Compared::Hostile])),
    ("an_experiment_that_goes_on_says_so", "begun", Comparisons(&[Compared::Begun])),
    ("a_comparison_says_what_is_doubtful", "doubtful", Comparisons(&[Compared::Doubtful])),
    ("a_comparison_of_one_run_has_no_interval", "thin", Comparisons(&[Compared::Thin])),
    ("a_comparison_on_paper_is_white_and_whole", "paper", Comparisons(&[Compared::Held])),
    (
        "no_comparison_is_wider_than_its_window_and_colours_stand_out",
        "shapes",
        Comparisons(Compared::ALL),
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A browser is two pCPUs' work by itself.
    arguments.test_threads = Some(1);
    let vslice = vslice();
    let drawn = CASES.iter().map(|&(name, case, of)| match vslice.clone() {
        Ok(vslice) => Trial::test(name, move || judge(name, case, of, &vslice)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    });
    let name = "every_figure_of_the_text_of_a_recorded_run_is_on_the_page";
    let recorded = match Lab::find() {
        Ok(lab) => Trial::test(name, move || judge_recorded(name, &lab)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, drawn.chain([recorded]).collect()).exit_code()
}

/// Guests that contend for a pCPU, one of which reads, and what its kernel asks of the disk.
fn judge_recorded(name: &str, lab: &Lab) -> Result<(), Failed> {
    let driver = match browser() {
        Ok(driver) => driver,
        Err(reason) => return not_judged(name, &reason),
    };
    let scratch = TempDir::new()?;
    let page = scratch.path().join("recorded.html");
    let mut run =
        lab.command(&["run", "demo", "--observe", "--total", "16MiB", "--json", "--html"]);
    let output = run.arg(&page).arg("--output").arg(scratch.path().join("run")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    ask("text", &[page.display().to_string()], &driver, scratch.path())
}

fn vslice() -> Result<PathBuf, String> {
    let path = std::env::var_os("VSLICE_BIN").ok_or("VSLICE_BIN is not set, see make test")?;
    let path = PathBuf::from(path);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is not there, see make test", path.display())),
    }
}

/// The browser's driver, as `.ci/install-needs test` puts it, and why there is no judging if it or the browser is not
/// there.
fn browser() -> Result<PathBuf, String> {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/browser");
    let program = std::env::var_os("VSLICE_CHROMIUM").map(PathBuf::from);
    let program = program.unwrap_or_else(|| PathBuf::from("/usr/bin/chromium"));
    let needs = [driver.join("node_modules/playwright-core/package.json"), program];
    match needs.iter().find(|file| !file.exists()) {
        Some(file) => Err(format!("{} is not there, see .ci/install-needs test", file.display())),
        None => Ok(driver),
    }
}

fn judge(name: &str, case: &str, of: Of, vslice: &Path) -> Result<(), Failed> {
    let driver = match browser() {
        Ok(driver) => driver,
        Err(reason) => return not_judged(name, &reason),
    };
    let scratch = TempDir::new()?;
    let mut arguments = Vec::new();
    match of {
        Runs(runs) => {
            for run in runs {
                run.draw(&scratch.path().join(run.name()));
                let page = |page: &Path| report(vslice, &scratch.path().join(run.name()), page);
                pages(&mut arguments, case, &scratch, run.name(), page)?;
            }
        }
        Comparisons(comparisons) => {
            for of in comparisons {
                let page = |page: &Path| of.write(vslice, scratch.path(), page);
                pages(&mut arguments, case, &scratch, of.name(), page)?;
            }
        }
    }
    if case == "markup" {
        arguments.extend(runs::HOSTILE_NAMES.map(str::to_owned));
    }
    ask(case, &arguments, &driver, scratch.path())
}

/// Asks this case of these pages.
fn ask(case: &str, pages: &[String], driver: &Path, scratch: &Path) -> Result<(), Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/page.mjs");
    let node = Command::new("node")
        .arg(script)
        .arg(case)
        .args(pages)
        .env("VSLICE_BROWSER", driver)
        .env("HOME", scratch)
        .output()?;
    match node.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&node.stderr).into_owned().into()),
    }
}

/// Has a page written, and adds it to the arguments: with the JSON of the same, where figures are to be compared.
fn pages(
    arguments: &mut Vec<String>,
    case: &str,
    scratch: &TempDir,
    name: &str,
    write: impl Fn(&Path) -> Result<String, String>,
) -> Result<(), Failed> {
    let page = scratch.path().join(format!("{name}.html"));
    let json = write(&page)?;
    arguments.push(page.display().to_string());
    if matches!(case, "figures" | "comparedFigures") {
        let told = scratch.path().join(format!("{name}.json"));
        std::fs::write(&told, json)?;
        arguments.push(told.display().to_string());
    }
    Ok(())
}

/// Writes the page of a stored run, and gives its summary.
fn report(vslice: &Path, run: &Path, page: &Path) -> Result<String, String> {
    let report =
        Command::new(vslice).args(["report", "--json", "--html"]).args([page, run]).output();
    let report = report.map_err(|error| error.to_string())?;
    match report.status.success() {
        true => Ok(String::from_utf8_lossy(&report.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&report.stderr).into_owned()),
    }
}
