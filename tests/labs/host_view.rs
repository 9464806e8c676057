//! The host's view against what the guest itself knows: where the guest stamps each request, the vCPU that took the I/O
//! is known, and for how long it was kept off its pCPU has to lie within the range that the host alone tells.

mod witness;

pub(crate) use witness::Held;

use crate::Case;
use libtest_mimic::Failed;
use std::io::Write as _;
use vslice_tests::{Lab, not_judged};

const TEST: &str = "the_hosts_range_holds_what_the_guest_saw";

pub(crate) const CASES: &[Case] = &[(TEST, range_holds)];

/// The ranges hold by law; what is left is I/O whose vCPU was not the one that completed the request.
const HELD_SHARE_MIN: f64 = 0.98;

/// Of fewer requests no share is told.
const REQUESTS_MIN: usize = 200;

fn range_holds(lab: &Lab) -> Result<(), Failed> {
    let run = lab.run(&["demo", "--total", "4MiB"])?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    let held = Held::of_one(&run.run_dir())?;
    if held.known_count() < REQUESTS_MIN {
        let because = format!("only {} requests are known from both sides", held.known_count());
        return not_judged(TEST, &because);
    }
    writeln!(std::io::stderr(), "\n{TEST}: {}", held.words())?;
    if held.share() < HELD_SHARE_MIN {
        return Err(format!("the range does not hold: {}", held.words()).into());
    }
    Ok(())
}
