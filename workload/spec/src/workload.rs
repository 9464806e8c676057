//! What to run, as a value: it arrives in the guest as JSON and appears in the run directory.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The block sizes that a reader can be asked for, in bytes. The smallest is a sector; the largest
/// bounds the memory of an agent, which has 8 MiB in all.
pub const BLOCK_BYTES: RangeInclusive<u32> = 512..=1 << 20;

/// The queue depths that a reader can be asked for.
pub const DEPTH: RangeInclusive<u16> = 1..=4096;

/// The leases that make sense, in milliseconds: shorter than the least, a busy collector loses its
/// guests; longer than the most, a hog outlives its collector for too long.
pub const LEASE_MS: RangeInclusive<u32> = 200..=60_000;

/// Hogs tell of looks at their clock that are further apart than this, in microseconds: ten times what
/// lies between two looks where a guest is slow, and a tenth of the shortest timeslice.
pub const HOG_GAP_US: u32 = 50;

/// Disks that can be named to be observed.
pub const OBSERVED_DISKS_MAX: usize = 32;

/// The target that stands for the machine's only disk.
pub const AUTO_TARGET: &str = "auto";

/// Everything one machine is asked to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// One hog pinned to each of these vCPUs.
    pub hogs: Vec<u16>,
    /// The reader, if this machine has one.
    pub reader: Option<ReaderSpec>,
    /// What to observe of the block requests of the machine's kernel, whoever makes them; `None`: nothing.
    pub observe: Option<ObserveSpec>,
    /// Where everything that is neither hog nor reader runs.
    pub housekeeping_vcpu: u16,
    /// Which clock stamps the requests.
    pub clock: ClockChoice,
    /// The I/O scheduler to set on the target's block device, `none` for instance; `None` leaves it.
    pub io_scheduler: Option<String>,
    /// Without a sign of life of the collector for this long, everything stops.
    pub lease_ms: u32,
    /// Hogs look at the clock, and tell of looks further apart than this many microseconds; not where
    /// reading the clock may leave the guest. `None`: they only count.
    pub hog_gap_us: Option<u32>,
}

/// Which clock the requests are stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockChoice {
    /// The TSC where CPUID says that it is invariant, `CLOCK_MONOTONIC_RAW` otherwise.
    Auto,
    /// The TSC: the collector knows that it is good here though CPUID does not say so. It knows
    /// this of QEMU's TCG, whose guests read the host's TSC plus a constant.
    Tsc,
    /// `CLOCK_MONOTONIC_RAW`.
    MonotonicRaw,
}

/// What to observe of a kernel's block requests. They are stamped by the kernel, which cannot be told
/// to read the TSC: [`WorkloadSpec::clock`] has to be `CLOCK_MONOTONIC_RAW`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserveSpec {
    /// The disks, by their names in the machine, `vda` for instance; at most [`OBSERVED_DISKS_MAX`].
    /// Empty: all that have a device behind them.
    pub devices: Vec<String>,
    /// Requests that took at least this long are told one by one, the others only counted. 0: all.
    pub slower_than_us: u64,
}

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderSpec {
    /// A file, a block device, or [`AUTO_TARGET`] for the machine's only disk.
    pub target: String,
    /// Create the target, a file, with `total_bytes` of real data first if it is not there.
    pub create: bool,
    /// The size of one read in bytes: a power of two in [`BLOCK_BYTES`].
    pub block_bytes: u32,
    /// What all reads come to, rounded up to whole blocks; a reader starts over at the end of a
    /// shorter target. Blocks that could not be read count as well.
    pub total_bytes: u64,
    /// Stop after this long even if there is more to read.
    pub duration_ms: Option<u64>,
    /// In which order the blocks are read.
    pub pattern: Pattern,
    /// How they are read.
    pub engine: Engine,
    /// Requests in flight at once; only `io_uring` can do more than 1. In [`DEPTH`].
    pub depth: u16,
    /// The vCPU that the reader is pinned to.
    pub vcpu: u16,
}

/// In which order a reader reads its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One after the other.
    Seq,
    /// By a fixed pseudo-random sequence, the same in every run.
    Rand,
}

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `pread(2)`, one at a time.
    Psync,
    /// `io_uring(7)`, `depth` at a time.
    IoUring,
}

/// Why a [`WorkloadSpec`] cannot run on a machine, with what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum SpecError {
    /// A pin names a vCPU that the machine does not have.
    #[error(
        "{what} is pinned to vCPU{vcpu}, but the machine has {vcpu_count} vCPUs, numbered from 0: \
         pin it to another or give the machine more"
    )]
    NoSuchVcpu { what: &'static str, vcpu: u16, vcpu_count: u16 },
    /// Two hogs on one vCPU.
    #[error("vCPU{vcpu} has more than one hog: name every vCPU once")]
    HogTwice { vcpu: u16 },
    /// The reader would share its vCPU with the threads that must not disturb it.
    #[error(
        "the reader is pinned to vCPU{vcpu}, where the housekeeping runs: pin one of them to \
         another of the {vcpu_count} vCPUs, so that the sending does not disturb the measuring"
    )]
    ReaderOnHousekeeping { vcpu: u16, vcpu_count: u16 },
    /// The lease is out of [`LEASE_MS`].
    #[error(
        "a lease of {lease_ms} ms is out of [{}, {}] ms", LEASE_MS.start(), LEASE_MS.end()
    )]
    Lease { lease_ms: u64 },
    /// The block size is out of [`BLOCK_BYTES`] or no power of two.
    #[error(
        "blocks of {block_bytes} bytes cannot be read: take a power of two in [{}, {}], 4096 for \
         instance",
        BLOCK_BYTES.start(),
        BLOCK_BYTES.end()
    )]
    BlockBytes { block_bytes: u64 },
    /// Not even one block is to be read.
    #[error("{total_bytes} bytes in total are less than one block of {block_bytes} bytes")]
    TotalBytes { total_bytes: u64, block_bytes: u32 },
    /// No time to read anything.
    #[error("a duration of 0 ms leaves no time to read: leave it out to read all of total_bytes")]
    NoDuration,
    /// The depth is out of [`DEPTH`].
    #[error("a depth of {depth} is out of [{}, {}]", DEPTH.start(), DEPTH.end())]
    Depth { depth: u16 },
    /// More than one request in flight with an engine that can only do one.
    #[error(
        "a depth of {depth} needs the engine io_uring: psync waits for each read, its depth is 1"
    )]
    PsyncDepth { depth: u16 },
    /// No target, or one that no path can be.
    #[error("the target {target:?} is no path: name a file, a block device, or {AUTO_TARGET:?}")]
    Target { target: String },
    /// A disk cannot be created.
    #[error(
        "the target {AUTO_TARGET:?} is a disk, which cannot be created: name a file, or say \
         create = false"
    )]
    CreateDisk,
    /// What is observed is stamped by the kernel.
    #[error(
        "requests that are observed are stamped by the kernel, with CLOCK_MONOTONIC_RAW, and so all \
         else must be: the clock is to be monotonic_raw"
    )]
    ObserveClock,
    /// Too many disks are named.
    #[error(
        "{count} disks are named to be observed, more than {OBSERVED_DISKS_MAX}: name none for all"
    )]
    ObservedDisks { count: usize },
    /// What stands for a disk cannot be the name of one.
    #[error("{name:?} is no name of a disk: take what stands in /sys/block, vda for instance")]
    DiskName { name: String },
    /// What stands for the scheduler cannot be the name of one.
    #[error(
        "{name:?} is no name of an I/O scheduler: take none, mq-deadline, kyber or bfq, or leave it \
         out"
    )]
    IoScheduler { name: String },
}

impl WorkloadSpec {
    /// No hogs and no reader, for a machine of which nothing is known.
    #[must_use]
    pub fn idle(lease_ms: u32) -> WorkloadSpec {
        WorkloadSpec {
            hogs: Vec::new(),
            reader: None,
            observe: None,
            housekeeping_vcpu: 0,
            clock: ClockChoice::Auto,
            io_scheduler: None,
            lease_ms,
            hog_gap_us: None,
        }
    }

    /// The same, with block requests observed, and so by the kernel's clock.
    #[must_use]
    pub fn observing(self, observe: ObserveSpec) -> WorkloadSpec {
        WorkloadSpec { observe: Some(observe), clock: ClockChoice::MonotonicRaw, ..self }
    }

    /// Checks everything that can be known before the machine's disks are looked at.
    ///
    /// A hog may share a vCPU with the reader or the housekeeping: that contention is what the
    /// experiment is about. The reader may share one with the housekeeping only where there is no
    /// other.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be run on a machine of `vcpu_count` vCPUs.
    pub fn validate(&self, vcpu_count: u16) -> Result<(), SpecError> {
        let exists = |what, vcpu| {
            if vcpu < vcpu_count {
                Ok(())
            } else {
                Err(SpecError::NoSuchVcpu { what, vcpu, vcpu_count })
            }
        };
        exists("the housekeeping", self.housekeeping_vcpu)?;
        for (position, &vcpu) in self.hogs.iter().enumerate() {
            exists("a hog", vcpu)?;
            if self.hogs[..position].contains(&vcpu) {
                return Err(SpecError::HogTwice { vcpu });
            }
        }
        if !LEASE_MS.contains(&self.lease_ms) {
            return Err(SpecError::Lease { lease_ms: self.lease_ms.into() });
        }
        if let Some(name) = &self.io_scheduler {
            validate_io_scheduler(name)?;
        }
        if let Some(observe) = &self.observe {
            observe.validate()?;
            if self.clock != ClockChoice::MonotonicRaw {
                return Err(SpecError::ObserveClock);
            }
        }
        if let Some(reader) = &self.reader {
            reader.validate()?;
            exists("the reader", reader.vcpu)?;
            if reader.vcpu == self.housekeeping_vcpu && vcpu_count > 1 {
                return Err(SpecError::ReaderOnHousekeeping { vcpu: reader.vcpu, vcpu_count });
            }
        }
        Ok(())
    }
}

impl ObserveSpec {
    /// Checks what does not depend on the machine. The kernel's own names of disks have at most 31
    /// bytes (`DISK_NAME_LEN` is 32).
    ///
    /// # Errors
    ///
    /// The first name that no disk has, or that there are too many.
    pub fn validate(&self) -> Result<(), SpecError> {
        let count = self.devices.len();
        if count > OBSERVED_DISKS_MAX {
            return Err(SpecError::ObservedDisks { count });
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_!".contains(&byte);
        let is_name = |name: &&String| (1..32).contains(&name.len()) && name.bytes().all(plain);
        match self.devices.iter().find(|name| !is_name(name)) {
            Some(name) => Err(SpecError::DiskName { name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl ReaderSpec {
    /// Checks what does not depend on the machine.
    ///
    /// # Errors
    ///
    /// The first value that no machine could run.
    pub fn validate(&self) -> Result<(), SpecError> {
        let &ReaderSpec { block_bytes, total_bytes, depth, .. } = self;
        if !block_bytes.is_power_of_two() || !BLOCK_BYTES.contains(&block_bytes) {
            return Err(SpecError::BlockBytes { block_bytes: block_bytes.into() });
        }
        if total_bytes < u64::from(block_bytes) {
            return Err(SpecError::TotalBytes { total_bytes, block_bytes });
        }
        if self.duration_ms == Some(0) {
            return Err(SpecError::NoDuration);
        }
        if !DEPTH.contains(&depth) {
            return Err(SpecError::Depth { depth });
        }
        if self.engine == Engine::Psync && depth > 1 {
            return Err(SpecError::PsyncDepth { depth });
        }
        if self.target.is_empty() || self.target.contains('\0') {
            return Err(SpecError::Target { target: self.target.clone() });
        }
        if self.create && self.target == AUTO_TARGET {
            return Err(SpecError::CreateDisk);
        }
        Ok(())
    }
}

/// Refuses what the kernel would not take for a name either, so that a file in sysfs gets nothing
/// else. The kernel's own names have at most 15 bytes (`ELV_NAME_MAX` is 16).
///
/// # Errors
/// If it is no such name.
pub fn validate_io_scheduler(name: &str) -> Result<(), SpecError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..16).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(SpecError::IoScheduler { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> ReaderSpec {
        ReaderSpec {
            target: AUTO_TARGET.to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: 8 << 30,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu: 2,
        }
    }

    /// VM1 of the seed: five vCPUs, a hog on each, the reader beside the one on vCPU2.
    fn seed() -> WorkloadSpec {
        WorkloadSpec {
            hogs: vec![0, 1, 2, 3, 4],
            reader: Some(reader()),
            housekeeping_vcpu: 0,
            clock: ClockChoice::Auto,
            io_scheduler: Some("none".to_owned()),
            lease_ms: 2000,
            observe: None,
            hog_gap_us: Some(50),
        }
    }

    fn with(change: impl FnOnce(&mut WorkloadSpec)) -> Result<(), SpecError> {
        let mut spec = seed();
        change(&mut spec);
        spec.validate(5)
    }

    fn with_reader(change: impl FnOnce(&mut ReaderSpec)) -> Result<(), SpecError> {
        with(|spec| change(spec.reader.as_mut().unwrap()))
    }

    #[test]
    fn the_seed_is_fine() {
        assert_eq!(seed().validate(5), Ok(()));
        assert_eq!(with(|spec| spec.hogs.clear()), Ok(()));
        assert_eq!(with(|spec| spec.reader = None), Ok(()));
        assert_eq!(with(|spec| spec.io_scheduler = None), Ok(()));
    }

    #[test]
    fn pins_must_exist() {
        let no_such = |what, vcpu| Err(SpecError::NoSuchVcpu { what, vcpu, vcpu_count: 5 });
        assert_eq!(with(|spec| spec.hogs.push(5)), no_such("a hog", 5));
        assert_eq!(with(|spec| spec.housekeeping_vcpu = 5), no_such("the housekeeping", 5));
        assert_eq!(with_reader(|reader| reader.vcpu = 7), no_such("the reader", 7));
        assert_eq!(with(|spec| spec.hogs.push(3)), Err(SpecError::HogTwice { vcpu: 3 }));
    }

    #[test]
    fn the_reader_leaves_the_housekeeping_alone_unless_it_cannot() {
        assert_eq!(
            with_reader(|reader| reader.vcpu = 0),
            Err(SpecError::ReaderOnHousekeeping { vcpu: 0, vcpu_count: 5 })
        );
        let mut spec = seed();
        spec.hogs = vec![0];
        spec.reader.as_mut().unwrap().vcpu = 0;
        assert_eq!(spec.validate(1), Ok(()));
    }

    #[test]
    fn what_is_observed_has_names_and_the_kernels_clock() {
        let observing = |devices: &[&str]| {
            with(|spec| {
                let devices = devices.iter().map(|name| (*name).to_owned()).collect();
                spec.observe = Some(ObserveSpec { devices, slower_than_us: 5000 });
                spec.clock = ClockChoice::MonotonicRaw;
            })
        };
        assert_eq!(observing(&[]), Ok(()));
        assert_eq!(observing(&["vda", "nvme0n1", "cciss!c0d0"]), Ok(()));
        for name in ["", "../vda", "vd a", "a-name-of-more-bytes-than-the-kernel-takes"] {
            assert_eq!(observing(&[name]), Err(SpecError::DiskName { name: name.to_owned() }));
        }
        assert_eq!(observing(&["vda"; 33]), Err(SpecError::ObservedDisks { count: 33 }));
        let by_tsc = with(|spec| {
            spec.observe = Some(ObserveSpec::default());
            spec.clock = ClockChoice::Tsc;
        });
        assert_eq!(by_tsc, Err(SpecError::ObserveClock));
    }

    #[test]
    fn numbers_keep_their_bounds() {
        for lease_ms in [0, 199, 60_001] {
            assert_eq!(
                with(|spec| spec.lease_ms = lease_ms),
                Err(SpecError::Lease { lease_ms: lease_ms.into() })
            );
        }
        for lease_ms in [200, 60_000] {
            assert_eq!(with(|spec| spec.lease_ms = lease_ms), Ok(()));
        }
        for block_bytes in [0, 256, 511, 513, 4095, 6144, 1 << 21, 1 << 31] {
            assert_eq!(
                with_reader(|reader| reader.block_bytes = block_bytes),
                Err(SpecError::BlockBytes { block_bytes: block_bytes.into() })
            );
        }
        for block_bytes in [512, 1024, 1 << 20] {
            assert_eq!(with_reader(|reader| reader.block_bytes = block_bytes), Ok(()));
        }
        assert_eq!(with_reader(|reader| reader.total_bytes = 4096), Ok(()));
        assert_eq!(
            with_reader(|reader| reader.total_bytes = 4095),
            Err(SpecError::TotalBytes { total_bytes: 4095, block_bytes: 4096 })
        );
        assert_eq!(with_reader(|reader| reader.duration_ms = Some(0)), Err(SpecError::NoDuration));
        assert_eq!(with_reader(|reader| reader.duration_ms = Some(1)), Ok(()));
    }

    #[test]
    fn only_io_uring_goes_deep() {
        assert_eq!(with_reader(|reader| reader.depth = 2), Err(SpecError::PsyncDepth { depth: 2 }));
        for (depth, expected) in [
            (0, Err(SpecError::Depth { depth: 0 })),
            (1, Ok(())),
            (4096, Ok(())),
            (4097, Err(SpecError::Depth { depth: 4097 })),
        ] {
            let deep = with_reader(|reader| {
                reader.engine = Engine::IoUring;
                reader.depth = depth;
            });
            assert_eq!(deep, expected);
        }
    }

    #[test]
    fn names_are_names() {
        for target in ["", "a\0b"] {
            assert_eq!(
                with_reader(|reader| target.clone_into(&mut reader.target)),
                Err(SpecError::Target { target: target.to_owned() })
            );
        }
        assert_eq!(with_reader(|reader| reader.create = true), Err(SpecError::CreateDisk));
        for name in ["", "none\n", "../none", "a-name-too-long-"] {
            assert_eq!(
                with(|spec| spec.io_scheduler = Some(name.to_owned())),
                Err(SpecError::IoScheduler { name: name.to_owned() })
            );
        }
        assert_eq!(with(|spec| spec.io_scheduler = Some("mq-deadline".to_owned())), Ok(()));
    }

    #[test]
    fn every_message_says_the_bounds() {
        let lease = SpecError::Lease { lease_ms: 1 }.to_string();
        assert_eq!(lease, "a lease of 1 ms is out of [200, 60000] ms");
        let target = SpecError::Target { target: String::new() }.to_string();
        assert!(target.contains("\"auto\""), "{target}");
    }
}
