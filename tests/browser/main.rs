//! The HTML page in a real browser: `vslice report --html` makes it of stored runs, headless Chromium opens it, and
//! `page.mjs` has what is asked of it. One test for one behaviour.
//!
//! Without the built binary every test here is reported as ignored; without a browser none can judge.

mod runs;

use libtest_mimic::{Arguments, Failed, Trial};
use runs::Run;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tempfile::TempDir;
use vslice_tests::{Lab, not_judged};

/// One test: what it shows, the case of `page.mjs`, and the runs of which it gets the pages.
type Case = (&'static str, &'static str, &'static [Run]);

const CASES: &[Case] = &[
    (
        "the_figures_on_the_page_are_those_of_the_summary",
        "figures",
        &[Run::Read, Run::Observed, Run::Sampled],
    ),
    (
        "every_figure_of_the_text_is_on_the_page",
        "text",
        &[
            Run::Read,
            Run::Observed,
            Run::Limited,
            Run::Killed,
            Run::Sampled,
            Run::FourVms,
            Run::Exits,
        ],
    ),
    ("tables_sort_by_what_was_before_it_was_rounded", "sorting", &[Run::Read]),
    ("a_stretch_of_time_is_chosen_by_mouse_keyboard_and_number", "selecting", &[Run::Read]),
    ("bars_and_lanes_tell_the_keyboard_what_they_tell_the_mouse", "keyboard", &[Run::Read]),
    ("names_with_markup_stay_text", "markup", &[Run::Hostile]),
    ("a_partial_run_says_so", "partial", &[Run::Killed]),
    ("a_run_without_requests_shows_the_rest", "without", &[Run::Idle]),
    ("a_sampled_run_has_shares_and_no_counts", "sampled", &[Run::Sampled]),
    ("four_vms_are_all_there", "four", &[Run::FourVms]),
    ("a_page_on_paper_is_white_and_whole", "paper", &[Run::Read]),
    ("no_page_is_wider_than_its_window_and_colours_stand_out", "shapes", Run::ALL),
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
    let mut run = lab.command(&["run", "demo", "--observe", "--total", "16M", "--json", "--html"]);
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

fn judge(name: &str, case: &str, of: &[Run], vslice: &Path) -> Result<(), Failed> {
    let driver = match browser() {
        Ok(driver) => driver,
        Err(reason) => return not_judged(name, &reason),
    };
    let scratch = TempDir::new()?;
    let mut arguments = Vec::new();
    for run in of {
        let directory = scratch.path().join(run.name());
        run.draw(&directory);
        let page = scratch.path().join(format!("{}.html", run.name()));
        let report = Command::new(vslice)
            .args(["report", "--json"])
            .arg("--html")
            .arg(&page)
            .arg(&directory)
            .output()?;
        if !report.status.success() {
            return Err(String::from_utf8_lossy(&report.stderr).into_owned().into());
        }
        arguments.push(page.display().to_string());
        if case == "figures" {
            let summary = scratch.path().join(format!("{}.json", run.name()));
            std::fs::write(&summary, &report.stdout)?;
            arguments.push(summary.display().to_string());
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
