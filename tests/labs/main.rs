//! Real guests: a stock kernel in QEMU, the agent in it, vsock, perf, from the command line to the
//! summary. One test for one behaviour.
//!
//! Without the built binary and image, or without the rights to record, every test here is
//! reported as ignored, with the reason where its kind stands.

mod advice;
mod bad_luck;
mod evidence;
mod experiment;
mod host_view;
mod large;
mod loads;
mod matrix;
mod newer_kernel;
mod newer_qemu;
mod observed_run;
mod observing;
mod slow_disk;
mod solo;
mod trace;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use vslice_tests::Lab;

/// One test: what it shows, and how.
type Case = (&'static str, fn(&Lab) -> Result<(), Failed>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The guests of two tests would contend for the same pCPUs.
    arguments.test_threads = Some(1);
    let lab = Lab::find();
    let user_lab = lab.clone().and_then(|lab| lab.may_be_used_by_anybody().map(|()| lab));
    let cases = [
        experiment::CASES,
        matrix::CASES,
        bad_luck::CASES,
        evidence::CASES,
        slow_disk::CASES,
        advice::CASES,
        observed_run::CASES,
        solo::CASES,
        host_view::CASES,
        observing::CASES,
        trace::CASES,
        large::CASES,
    ];
    let cases = cases.into_iter().flatten();
    let mut trials: Vec<Trial> = cases.map(|case| trial(*case, lab.clone())).collect();
    let newer_guests =
        lab.clone().and_then(|lab| newer_kernel::image().map(|image| lab.with_image(image)));
    let newer_cases = newer_kernel::CASES.iter().chain(observing::NEWER_CASES);
    trials.extend(newer_cases.map(|case| trial(*case, newer_guests.clone())));
    let older_guests =
        lab.clone().and_then(|lab| newer_kernel::older_image().map(|image| lab.with_image(image)));
    trials.extend(observing::OLDER_CASES.iter().map(|case| trial(*case, older_guests.clone())));
    let load_guest = loads::SharedGuest::default();
    trials.extend(loads::trials(lab.clone(), &load_guest));
    let newer_lab = lab.and_then(|lab| newer_qemu::directory().map(|_| lab));
    trials.extend(newer_qemu::CASES.iter().map(|case| trial(*case, newer_lab.clone())));
    let judge = solo::JUDGE_CASES.iter();
    trials.extend(judge.map(|(name, case)| Trial::test(*name, *case)));
    trials.extend(evidence::USER_CASES.iter().map(|case| trial(*case, user_lab.clone())));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(load_guest);
    conclusion.exit_code()
}

fn trial((name, case): Case, lab: Result<Lab, String>) -> Trial {
    match lab {
        Ok(lab) => Trial::test(name, move || case(&lab)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    }
}
