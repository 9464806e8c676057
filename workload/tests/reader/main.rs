//! Readers on real files and real block devices, through the public interface only.

mod block_device;
mod reading;
mod run;
mod targets;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [reading::trials(), targets::trials(), block_device::trials()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
