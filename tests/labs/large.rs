//! A run whose right summary is known: many pCPUs and VMs, and more requests than any other lab makes.

use crate::Case;
use libtest_mimic::Failed;
use vslice_tests::Lab;
use vslice_tests::large::{Asked, write};

pub(crate) const CASES: &[Case] =
    &[("the_summary_of_a_large_host_is_what_happened_there", is_what_happened)];

const ASKED: Asked = Asked { events: 200_000, requests: 20_000, vms: 8, pcpus: 64, seed: 1 };

fn is_what_happened(lab: &Lab) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let run = scratch.path().join("run");
    let expected = write(&run, &ASKED)?;
    let run = run.to_str().ok_or("a path that is no text")?;
    let report = lab.command(&["report", "--json", run]).output()?;
    if !report.status.success() {
        return Err(String::from_utf8_lossy(&report.stderr).into_owned().into());
    }
    let differences = expected.differences(&serde_json::from_slice(&report.stdout)?);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}
