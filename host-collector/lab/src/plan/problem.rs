//! What can be wrong with a plan, said so that its author knows what to change.

use thiserror::Error;
use vslice_core::units::PcpuId;
use vslice_spec::SpecError;
use vslice_trace::host::HostPcpus;

/// Why a plan cannot be used.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Neither a built-in plan nor a file.
    #[error(
        "there is no plan '{name}': it is neither a built-in plan ({}) nor the path of a file",
        built_in_names()
    )]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the plan {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not TOML, or not that of a plan.
    #[error("plan {origin}, line {line}{}: {message}", key.as_ref().map(|key| format!(", key '{key}'")).unwrap_or_default())]
    Syntax {
        /// The plan's name or path.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The key on that line, if there is one.
        key: Option<String>,
        /// What is wrong, in the parser's words.
        message: String,
    },
    /// It contradicts itself.
    #[error("plan '{plan}': {problem}")]
    Impossible {
        /// The plan's name.
        plan: String,
        /// What is wrong.
        problem: Problem,
    },
    /// The host is too small for it.
    #[error(
        "plan '{plan}' needs {}; this host has {host} online (nproc={})",
        pcpu_list(missing),
        host.count()
    )]
    DoesNotFit {
        /// The plan's name.
        plan: String,
        /// The pCPUs that the host does not have.
        missing: Vec<PcpuId>,
        /// Those that it has.
        host: HostPcpus,
    },
}

/// What a plan says that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A name that cannot be a thread's, a file's and a socket's.
    #[error("name = \"{0}\": use 1 to 32 of the characters a-z, 0-9 and -")]
    Name(String),
    /// No guest.
    #[error("it has no [[vm]]")]
    NoVm,
    /// More guests than vslice numbers.
    #[error("it has {0} [[vm]], but at most 64 are possible")]
    TooManyVms(usize),
    /// No guest has a reader.
    #[error("no vm has a [vm.reader], so there would be no request to explain")]
    NoReader,
    /// Two guests of one name.
    #[error("two vms have the name '{0}'")]
    VmTwice(String),
    /// It would be written to the kernel.
    #[error("host_io_scheduler = \"{0}\" is not the name of an I/O scheduler, such as bfq")]
    HostIoScheduler(String),
    /// The number of a key is out of its range.
    #[error("vm '{vm}': {key} = {value} is not between {min} and {max}")]
    Range {
        /// The guest.
        vm: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The least that is possible.
        min: u64,
        /// The most that is possible.
        max: u64,
    },
    /// Not as many pins as vCPUs.
    #[error(
        "vm '{vm}': vcpu_pcpus has {pins} pCPUs for vcpus = {vcpus}; it needs one for each vCPU"
    )]
    PinCount {
        /// The guest.
        vm: String,
        /// The length of `vcpu_pcpus`.
        pins: usize,
        /// The number of vCPUs.
        vcpus: u16,
    },
    /// Nothing to read.
    #[error("vm '{0}' has a [vm.reader] but no [vm.disk] to read")]
    NoDisk(String),
    /// A virtio disk's word for another one.
    #[error("vm '{vm}': {key} is for virtio disks; QEMU has no equivalent for bus = \"{bus}\"")]
    NotVirtio {
        /// The guest.
        vm: String,
        /// The key, with its value.
        key: &'static str,
        /// The disk's bus.
        bus: &'static str,
    },
    /// Nothing would wake the iothread.
    #[error("vm '{0}': iothread = true needs ioeventfd = true, which wakes the iothread")]
    IothreadWithoutEventfd(String),
    /// Queues of a disk that no iothread serves, or that QEMU does not spread.
    #[error("vm '{0}': iothreads above 1 needs iothread = true")]
    NoMapping(String),
    /// Linux AIO through the page cache.
    #[error(
        "vm '{0}': aio = \"native\" needs cache = \"none\" or \"directsync\"; QEMU refuses other caches"
    )]
    NativeNeedsDirect(String),
    /// A disk that does not hold whole blocks.
    #[error(
        "vm '{vm}': size is {size_bytes} bytes; it must be a multiple of 1 MiB and hold at least one block"
    )]
    DiskSize {
        /// The guest.
        vm: String,
        /// The size in bytes.
        size_bytes: u64,
    },
    /// What the agent in the guest would refuse.
    #[error("vm '{vm}': {problem}")]
    Workload {
        /// The guest.
        vm: String,
        /// Why.
        problem: SpecError,
    },
    /// An override for something that no VM has.
    #[error("{flag} changes [vm.{table}], but no vm has one")]
    NothingToOverride {
        /// The command line's flag.
        flag: &'static str,
        /// `disk` or `reader`.
        table: &'static str,
    },
}

impl PlanError {
    /// From a TOML error: the line, and the key on it, in words.
    pub(super) fn syntax(origin: &str, text: &str, error: &toml::de::Error) -> PlanError {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or("");
        let line_index = before.matches('\n').count();
        let key = text.lines().nth(line_index).and_then(key_of).map(str::to_owned);
        // The parser's message may span lines; a sentence does not.
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        PlanError::Syntax { origin: origin.to_owned(), line: line_index + 1, key, message }
    }
}

/// The key of a TOML line `key = value`, or the header of a table.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with('[') {
        return Some(line);
    }
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

fn built_in_names() -> String {
    super::BUILT_IN.map(|(name, _)| name).join(", ")
}

/// `pCPU2, pCPU3 and pCPU4`.
fn pcpu_list(pcpus: &[PcpuId]) -> String {
    let names: Vec<String> = pcpus.iter().map(PcpuId::to_string).collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}
