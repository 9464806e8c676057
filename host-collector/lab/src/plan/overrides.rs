//! What the command line changes in a plan.

use super::{DiskPlan, KEEP, Plan, PlanError, Problem, ReaderPlan};
use crate::quantity::{parse_bytes, parse_duration_ms};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use vslice_host::disk::{Aio, Cache, DiskBus};
use vslice_spec::{Engine, Pattern};

/// Values that replace those of a plan. A value for readers or disks applies to every VM that has one.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct Overrides {
    /// Read this much in total, such as 64MiB
    #[arg(long = "total", value_name = "SIZE", value_parser = parse_bytes)]
    pub total_bytes: Option<u64>,
    /// Read blocks of this size, such as 4KiB
    #[arg(long = "block", value_name = "SIZE", value_parser = parse_bytes)]
    pub block_bytes: Option<u64>,
    /// Order of the reads: seq, rand
    #[arg(long, value_parser = parse_word::<Pattern>)]
    pub pattern: Option<Pattern>,
    /// System calls that read: psync, io_uring
    #[arg(long, value_parser = parse_word::<Engine>)]
    pub engine: Option<Engine>,
    /// Keep this many requests in flight
    #[arg(long)]
    pub depth: Option<u16>,
    /// Stop after this time, such as 30s, 1.5m or 2h
    #[arg(long = "duration", value_name = "DURATION", value_parser = parse_duration_ms)]
    pub duration_ms: Option<u64>,
    /// Serve the disk in an iothread: true, false
    #[arg(long, action = clap::ArgAction::Set)]
    pub iothread: Option<bool>,
    /// Spread the disk's queues over this many iothreads (QEMU 9.0 or later)
    #[arg(long)]
    pub iothreads: Option<u16>,
    /// Deliver the guest's doorbell by an eventfd to the thread that serves the disk: true, false
    #[arg(long, action = clap::ArgAction::Set)]
    pub ioeventfd: Option<bool>,
    /// Give a virtio disk MSI-X interrupts: true, false
    #[arg(long, action = clap::ArgAction::Set)]
    pub msix: Option<bool>,
    /// Kind of disk that the guest sees: virtio-blk, virtio-scsi, ide, ahci, nvme
    #[arg(long, value_parser = parse_word::<DiskBus>)]
    pub bus: Option<DiskBus>,
    /// How QEMU reads the image: native, threads, io_uring
    #[arg(long, value_parser = parse_word::<Aio>)]
    pub aio: Option<Aio>,
    /// How QEMU caches the image: none, writeback, writethrough, directsync, unsafe
    #[arg(long, value_parser = parse_word::<Cache>)]
    pub cache: Option<Cache>,
    /// Observe all block requests of the guests that have a disk
    #[arg(long)]
    pub observe: bool,
    /// I/O scheduler to set during the run on the host disk that holds the guests' images; keep: leave it
    /// as it is
    #[arg(long, value_name = "NAME")]
    pub host_io_scheduler: Option<String>,
    /// Record every exit of every vCPU (KVM only); this takes time on the vCPUs' pCPUs: --exits,
    /// --exits=false
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub exits: Option<bool>,
}

/// Parses an enum of another crate from the word that a plan uses for it.
fn parse_word<T: for<'de> Deserialize<'de>>(word: &str) -> Result<T, String> {
    T::deserialize(word.into_deserializer()).map_err(|error: ValueError| error.to_string())
}

impl Overrides {
    /// Changes the plan and checks it again.
    ///
    /// # Errors
    /// Fails with [`PlanError::Impossible`] if no VM has what is to be changed, or if the changed plan is
    /// invalid.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), PlanError> {
        self.apply_parts(plan)?;
        plan.check()
    }

    /// The same for guests that vslice does not run itself: see [`Plan::check_parts`].
    ///
    /// # Errors
    /// As [`Overrides::apply`].
    pub fn apply_parts(&self, plan: &mut Plan) -> Result<(), PlanError> {
        let nothing = |flag, table| PlanError::Impossible {
            plan: plan.name.clone(),
            problem: Problem::NothingToOverride { flag, table },
        };
        if let Some(flag) = self.reader_flag()
            && plan.vms.iter().all(|vm| vm.reader.is_none())
        {
            return Err(nothing(flag, "reader"));
        }
        if let Some(flag) = self.disk_flag()
            && plan.vms.iter().all(|vm| vm.disk.is_none())
        {
            return Err(nothing(flag, "disk"));
        }
        replace(&mut plan.exits, self.exits);
        if let Some(name) = &self.host_io_scheduler {
            plan.host_io_scheduler = Some(name.clone()).filter(|name| name != KEEP);
        }
        for vm in &mut plan.vms {
            if let Some(reader) = &mut vm.reader {
                self.change_reader(reader);
            }
            if let Some(disk) = &mut vm.disk {
                self.change_disk(disk);
                if self.observe {
                    vm.observe.get_or_insert_default();
                }
            }
        }
        plan.check_parts()
    }

    /// The first flag that was given for a reader.
    fn reader_flag(&self) -> Option<&'static str> {
        [
            ("--total", self.total_bytes.is_some()),
            ("--block", self.block_bytes.is_some()),
            ("--pattern", self.pattern.is_some()),
            ("--engine", self.engine.is_some()),
            ("--depth", self.depth.is_some()),
            ("--duration", self.duration_ms.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// The first flag that was given for a disk.
    fn disk_flag(&self) -> Option<&'static str> {
        [
            ("--observe", self.observe),
            ("--iothread", self.iothread.is_some()),
            ("--iothreads", self.iothreads.is_some()),
            ("--ioeventfd", self.ioeventfd.is_some()),
            ("--msix", self.msix.is_some()),
            ("--bus", self.bus.is_some()),
            ("--aio", self.aio.is_some()),
            ("--cache", self.cache.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    fn change_reader(&self, reader: &mut ReaderPlan) {
        replace(&mut reader.total_bytes, self.total_bytes);
        replace(&mut reader.block_bytes, self.block_bytes);
        replace(&mut reader.pattern, self.pattern);
        replace(&mut reader.engine, self.engine);
        replace(&mut reader.depth, self.depth);
        reader.duration_ms = self.duration_ms.or(reader.duration_ms);
    }

    fn change_disk(&self, disk: &mut DiskPlan) {
        replace(&mut disk.iothread, self.iothread);
        replace(&mut disk.iothreads, self.iothreads);
        replace(&mut disk.ioeventfd, self.ioeventfd);
        replace(&mut disk.msix, self.msix);
        replace(&mut disk.bus, self.bus);
        replace(&mut disk.aio, self.aio);
        replace(&mut disk.cache, self.cache);
    }
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The command's own words.
    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        overrides: Overrides,
    }

    fn parse(words: &[&str]) -> Result<Overrides, clap::Error> {
        CommandLine::try_parse_from([&["vslice"], words].concat()).map(|line| line.overrides)
    }

    #[test]
    fn the_command_line_changes_reader_and_disk() {
        let words = "--total 8GiB --block 64KiB --pattern rand --engine io_uring --depth 32 \
                     --duration 30s --iothread true --bus virtio-scsi --aio io_uring --cache directsync";
        let overrides =
            parse(&words.split_whitespace().collect::<Vec<_>>()).expect("all are known");
        let mut plan = Plan::load("demo").expect("built in");
        overrides.apply(&mut plan).expect("possible");
        let reader = plan.vms[0].reader.as_ref().expect("vm1 has a reader");
        assert_eq!(
            (reader.total_bytes, reader.block_bytes, reader.depth, reader.duration_ms),
            (8 << 30, 64 << 10, 32, Some(30_000))
        );
        assert_eq!((reader.pattern, reader.engine), (Pattern::Rand, Engine::IoUring));
        let disk = plan.vms[0].disk.as_ref().expect("vm1 has a disk");
        assert_eq!(
            (disk.iothread, disk.bus, disk.aio, disk.cache),
            (true, DiskBus::VirtioScsi, Aio::IoUring, Cache::Directsync)
        );
        assert_eq!((&plan.vms[1].reader, &plan.vms[1].disk), (&None, &None));
    }

    #[test]
    fn the_overrides_leave_the_commands_own_help_alone() {
        let about = <CommandLine as clap::CommandFactory>::command().get_about().cloned();
        assert_eq!(about.map(|text| text.to_string()).as_deref(), Some("The command's own words"));
    }

    #[test]
    fn exits_are_a_flag_that_can_also_be_taken_back() {
        for (words, before, after) in [
            (&["--exits"][..], false, true),
            (&["--exits=true"], false, true),
            (&["--exits=false"], true, false),
            (&[], true, true),
            (&[], false, false),
        ] {
            let mut plan = Plan { exits: before, ..Plan::load("demo").expect("built in") };
            parse(words).expect("known").apply(&mut plan).expect("possible");
            assert_eq!(plan.exits, after, "{words:?}");
        }
        assert!(!Plan::load("demo").expect("built in").exits, "off unless asked for");
    }

    #[test]
    fn no_flag_changes_nothing() {
        let mut plan = Plan::load("seed").expect("built in");
        parse(&[]).expect("no flag").apply(&mut plan).expect("unchanged");
        assert_eq!(plan, Plan::load("seed").expect("built in"));
    }

    #[test]
    fn a_change_that_does_not_go_with_the_plan_is_refused() {
        let mut plan = Plan::load("demo").expect("built in");
        let overrides = parse(&["--bus", "ide", "--iothread", "true"]).expect("known words");
        let message = overrides.apply(&mut plan).expect_err("IDE has no iothread").to_string();
        assert!(message.contains("is for virtio disks"), "{message}");
        assert!(parse(&["--pattern", "zigzag"]).is_err());
        assert!(parse(&["--total", "lots"]).is_err());
    }
}
