//! The comparisons of which pages are made: of sides drawn by hand, or of stored runs by the command itself.

use super::runs::{HOSTILE_NAMES, Run};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_export::comparison_page::{self, ComparisonPage, Condition, Pair};
use vslice_report::compare::because::WaitedFor;
use vslice_report::compare::example::{
    attached, condition, doubtful_sides, held, neighbour, side, slow, thin_sides, vcpu,
};
use vslice_report::compare::{Comparison, LeftOut, Side};
use vslice_report::summary::OffReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Six runs against six, in which the claim holds.
    Held,
    /// With everything that there is to warn of.
    Doubtful,
    /// One run against three.
    Thin,
    /// Runs without requests, of which only vCPUs are compared.
    Attached,
    /// Directories, processes and conditions that are called as if they were markup.
    Hostile,
    /// An experiment of eight conditions with ten runs each.
    Many,
    /// One of which some runs are there.
    Begun,
    /// Stored runs, by the command.
    Stored,
}

impl Compared {
    pub(crate) const ALL: &[Compared] = &[
        Compared::Held,
        Compared::Doubtful,
        Compared::Thin,
        Compared::Attached,
        Compared::Hostile,
        Compared::Many,
        Compared::Begun,
        Compared::Stored,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Compared::Held => "held",
            Compared::Doubtful => "doubtful",
            Compared::Thin => "thin",
            Compared::Attached => "attached",
            Compared::Hostile => "hostile-comparison",
            Compared::Many => "many",
            Compared::Begun => "begun",
            Compared::Stored => "stored",
        }
    }

    /// Writes its page, and gives the JSON of its comparison, if it is one.
    pub(crate) fn write(
        self,
        vslice: &Path,
        scratch: &Path,
        page: &Path,
    ) -> Result<String, String> {
        match self {
            Compared::Held => two(held(), page),
            Compared::Doubtful => two(doubtful_sides(), page),
            Compared::Thin => two(thin_sides(), page),
            Compared::Attached => two(neighbour(), page),
            Compared::Hostile => two(hostile(), page),
            Compared::Many => experiment(&many(), None, page),
            Compared::Begun => experiment(&many()[..3], Some("30 of 80 runs are made."), page),
            Compared::Stored => stored(vslice, scratch, page),
        }
    }
}

fn two((a, b): (Side, Side), page: &Path) -> Result<String, String> {
    let comparison = Comparison::new(a.clone(), b.clone());
    write(&ComparisonPage::of_two(&a, &b, &comparison), page)?;
    serde_json::to_string(&comparison).map_err(|error| error.to_string())
}

fn write(of: &ComparisonPage<'_>, page: &Path) -> Result<(), String> {
    let written = File::create(page).and_then(|mut file| of.write(&mut file));
    written.map_err(|error| error.to_string())
}

fn hostile() -> (Side, Side) {
    let [image, script] = HOSTILE_NAMES;
    let bql = [(OffReason::Left(Reason::Bql), 2e6)];
    let runs = |wait: f64| -> Vec<_> {
        [1.0, 1.1, 1.2, 1.3].map(|of| vcpu(image, wait * of, &bql, &[(script, wait * of)])).into()
    };
    let (mut a, mut b) = (attached(image, &runs(5e6)), attached(script, &runs(5e8)));
    a.runs[0].conditions.push(condition(script, image));
    let left_out = LeftOut { path: format!("{image}/9"), reason: script.to_owned() };
    b.left_out.push(left_out);
    b.runs[1].path = script.to_owned();
    (a, b)
}

/// Four disks without and with an iothread, which helps more or less.
fn many() -> Vec<Side> {
    let runs = |cv: f64, wait: f64| -> Vec<(f64, f64)> {
        let of_run = |at: i32| {
            let noise = f64::from((at * 7) % 10) / 10.0 - 0.45;
            (cv * (1.0 + 0.1 * noise), wait * (1.0 + 0.3 * noise))
        };
        (0..10).map(of_run).collect()
    };
    let disks = ["virtio-blk", "virtio-blk-no-ioeventfd", "virtio-scsi", "nvme"];
    let pair = |(at, disk): (i32, &str)| {
        let kept = f64::from(at) / 3.0;
        let mut off = side(&format!("{disk}.off.native.none"), false, &runs(1.2, 3e7));
        let with = side(
            &format!("{disk}.iothread.native.none"),
            true,
            &runs(0.7 + 0.5 * kept, 3e7 * kept + 5e5),
        );
        for run in &mut off.runs {
            run.slow = Some(slow(&[(WaitedFor::State(Part::BqlWait), 3e6)], &[]));
        }
        [off, with]
    };
    (0..).zip(disks).flat_map(pair).collect()
}

fn experiment(sides: &[Side], partial: Option<&str>, page: &Path) -> Result<String, String> {
    let comparisons: Vec<Comparison> = sides
        .chunks_exact(2)
        .map(|pair| Comparison::new(pair[0].clone(), pair[1].clone()))
        .collect();
    let mut conditions: Vec<Condition<'_>> = sides
        .iter()
        .map(|side| Condition {
            name: side.path.clone(),
            state: format!("{} of 10 runs", side.runs.len()),
            side: Some(side),
        })
        .collect();
    conditions.push(Condition {
        name: "ide.iothread.native.none".to_owned(),
        state: "not available here: iothread = true is for virtio disks".to_owned(),
        side: None,
    });
    let pairs = comparisons.iter().enumerate();
    let of = ComparisonPage {
        command: comparison_page::Command::Experiment,
        title: "drawn: four disks without and with an iothread".to_owned(),
        partial: partial.map(str::to_owned),
        conditions,
        pairs: pairs
            .map(|(at, comparison)| Pair { a: 2 * at, b: 2 * at + 1, comparison })
            .collect(),
        text: "Experiment drawn: four disks without and with an iothread".to_owned(),
    };
    write(&of, page)?;
    Ok(String::from("null"))
}

/// Two runs on one side, and four on the other, of which one was killed.
fn stored(vslice: &Path, scratch: &Path, page: &Path) -> Result<String, String> {
    let [a, b] = ["a", "b"].map(|side| scratch.join("stored").join(side));
    for (side, runs) in [(&a, 2), (&b, 4)] {
        for run in 0..runs {
            let of = if runs == 4 && run == 1 { Run::Killed } else { Run::Read };
            let directory = side.join(format!("run-{}", run + 1));
            std::fs::create_dir_all(side).map_err(|error| error.to_string())?;
            of.draw(&directory);
        }
    }
    let compare =
        Command::new(vslice).args(["compare", "--json", "--html"]).args([page, &a, &b]).output();
    let compare = compare.map_err(|error| error.to_string())?;
    match compare.status.success() {
        true => Ok(String::from_utf8_lossy(&compare.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&compare.stderr).into_owned()),
    }
}
