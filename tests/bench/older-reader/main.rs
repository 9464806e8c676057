//! The reader of an older vslice in windows like those of `make bench-reading`: this file and two of the bench,
//! compiled by tests/bench/parent with the older `vslice-workload`.
//!
//!   reader TASK TARGET PCPU WINDOW_MS
//!
//! It prints the window's value: ns for a request that is not made, or requests a second.

#![allow(dead_code, reason = "the bench has more of it")]

mod statistics;

mod reading {
    pub(crate) mod reader;
    pub(crate) mod task;

    /// Of the bench's own rounds, what a window of the reader needs to know.
    pub(crate) mod rounds {
        use std::path::Path;

        pub(crate) struct Pcpu(pub(crate) u32);

        pub(crate) struct Places {
            pub(crate) measured: Pcpu,
        }

        pub(crate) struct Setting<'a> {
            pub(crate) places: Places,
            pub(crate) target: &'a Path,
        }
    }
}

use anyhow::Context;
use reading::reader;
use reading::rounds::{Pcpu, Places, Setting};
use reading::task::{ALL, Task};
use std::path::PathBuf;
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, target, pcpu, window_ms] = &arguments[..] else {
        anyhow::bail!("usage: reader TASK TARGET PCPU WINDOW_MS");
    };
    let task = ALL.into_iter().find(|one| one.to_string() == *task).context("no such task")?;
    let target = PathBuf::from(target);
    let setting = Setting { places: Places { measured: Pcpu(pcpu.parse()?) }, target: &target };
    let window = Duration::from_millis(window_ms.parse()?);
    let window = match task {
        Task::Record => reader::record(&setting, window)?,
        Task::Read { engine, depth } => reader::read(&setting, engine, depth, window)?,
    };
    println!("{}", window.value);
    Ok(())
}
